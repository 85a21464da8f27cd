//! `Content-Range` of chunks.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::range::content_range;

fuzz_target!(|text: &str| {
    if let Some((first, length)) = content_range(text) {
        assert!(length > 0);
        let last = first + (length - 1);
        assert_eq!(content_range(&format!("{first}-{last}")), Some((first, length)));
    }
});
