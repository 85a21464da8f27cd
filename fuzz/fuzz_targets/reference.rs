//! Names of images, repositories, tags.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::{ImageRef, Reference, RepoName, Tag};

fuzz_target!(|text: &str| {
    if let Ok(name) = text.parse::<RepoName>() {
        assert_eq!(name.as_str(), text);
        assert!(!text.contains("..") && !text.starts_with('/') && !text.ends_with('/'));
    }
    if let Ok(tag) = text.parse::<Tag>() {
        assert_eq!(tag.as_str(), text);
        assert!(!text.contains('/'));
    }
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string(), text);
    }
    if let Ok(image) = text.parse::<ImageRef>() {
        let shown = image.to_string();
        assert_eq!(
            shown.parse::<ImageRef>().map(|again| again.to_string()),
            Ok(shown)
        );
    }
});
