//! `Range` of requests.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::range::Wanted;

fuzz_target!(|input: (&str, u64)| {
    let (text, size) = input;
    if let Wanted::Part(range) = Wanted::parse(text, size) {
        assert!(range.start < range.end && range.end <= size);
    }
});
