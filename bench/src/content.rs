//! Blobs that differ from each other, and manifests.

use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Length of the part by which two blobs of a family differ.
const TAIL_BYTES: usize = 16;

/// Blobs of one size that share all but their last bytes, so that hashing one costs nothing: the state of the hash
/// before those bytes is kept.
#[derive(Debug)]
pub(crate) struct BlobFamily {
    common: Vec<u8>,
    hashed: Sha256,
    next: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct Blob<'family> {
    common: &'family [u8],
    tail: [u8; TAIL_BYTES],
    pub(crate) digest: String,
}

impl BlobFamily {
    pub(crate) fn new(size_bytes: usize, seed: u64) -> Self {
        let common = noise(size_bytes - TAIL_BYTES, seed);
        let hashed = Sha256::new_with_prefix(&common);
        Self {
            common,
            hashed,
            next: AtomicU64::new(seed << 32),
        }
    }

    pub(crate) fn next_blob(&self) -> Blob<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut tail = [0; TAIL_BYTES];
        tail[..8].copy_from_slice(&number.to_le_bytes());
        let digest = hex::encode(self.hashed.clone().chain_update(tail).finalize());
        Blob {
            common: &self.common,
            tail,
            digest: format!("sha256:{digest}"),
        }
    }
}

impl Blob<'_> {
    pub(crate) fn parts(&self) -> [&[u8]; 2] {
        [self.common, &self.tail]
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.common.len() + self.tail.len()
    }
}

/// An image manifest about as long as those of small images (0.7 KB), whose config and layers are `blobs`.
pub(crate) fn manifest(config: &Blob<'_>, layers: &[&Blob<'_>], note: &str) -> Vec<u8> {
    let layers: Vec<_> = layers.iter().map(|layer| descriptor(LAYER_TYPE, layer)).collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": descriptor(CONFIG_TYPE, config),
        "layers": layers,
        "annotations": {"org.opencontainers.image.ref.name": note},
    });
    manifest.to_string().into_bytes()
}

/// What a signature or an SBOM is pushed as: it refers to another manifest.
pub(crate) fn referrer(payload: &Blob<'_>, note: &str, subject: &[u8]) -> Vec<u8> {
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": "application/vnd.example.sbom",
        "config": descriptor(CONFIG_TYPE, payload),
        "layers": [descriptor(LAYER_TYPE, payload)],
        "subject": {"mediaType": MANIFEST_TYPE, "digest": digest(subject), "size": subject.len()},
        "annotations": {"org.opencontainers.image.ref.name": note},
    });
    manifest.to_string().into_bytes()
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn descriptor(media_type: &str, blob: &Blob<'_>) -> serde_json::Value {
    serde_json::json!({"mediaType": media_type, "digest": blob.digest, "size": blob.size_bytes()})
}

/// Bytes that no server could compress (splitmix64).
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_parts() {
        let family = BlobFamily::new(1000, 1);
        let (first, second) = (family.next_blob(), family.next_blob());
        let whole = first.parts().concat();
        assert_eq!(whole.len(), 1000);
        assert_eq!(
            first.digest,
            format!("sha256:{}", hex::encode(Sha256::digest(&whole)))
        );
        assert_ne!(first.digest, second.digest);
    }
}
