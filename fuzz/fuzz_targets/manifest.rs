//! Manifests and indexes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::{MAX_REFERENCES, Manifest, media_type};

fuzz_target!(|bytes: &[u8]| {
    let types = [
        None,
        Some(media_type::OCI_MANIFEST),
        Some(media_type::OCI_INDEX),
        Some(media_type::DOCKER_MANIFEST),
    ];
    for content_type in types {
        if let Ok(manifest) = Manifest::parse(content_type, bytes.to_vec()) {
            assert!(manifest.blobs().count() <= MAX_REFERENCES);
        }
    }
});
