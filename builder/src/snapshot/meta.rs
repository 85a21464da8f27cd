//! What is remembered about a snapshot.

use std::fmt;

use oci::Digest;
use serde::{Deserialize, Serialize};

/// Version of `meta.json`; others are dropped at start.
pub(super) const META_VERSION: u32 = 1;

/// `s/<n>/meta.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    pub v: u32,
    /// The boot in which it was written: without a sync, its files are whole only in that boot.
    pub boot_id: String,
    pub synced: bool,
    /// The snapshot below, by its counter.
    pub parent: Option<String>,
    /// Known once the layer has been tarred or was unpacked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_id: Option<ChainId>,
    /// The layer's logical time, if it has one, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_time: Option<i64>,
    /// Files of this layer that carry an instant within these bounds stand for the layer's logical time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<Times>,
    pub bytes: u64,
    pub last_used: i64,
}

/// Instants of materialisation: nanoseconds since 1970, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    pub low: i64,
    pub high: i64,
}

impl Times {
    pub fn contains(&self, instant: i64) -> bool {
        (self.low..=self.high).contains(&instant)
    }
}

/// Names a tree by the layers it is made of, bottom first, each with its diff id and logical time. It is the image
/// specification's ChainID with the times mixed in, because they decide what a snapshot looks like on disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChainId(String);

impl ChainId {
    /// The chain made of `parent` and one more layer.
    pub fn extend(parent: Option<&Self>, diff_id: &Digest, layer_time: Option<i64>) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("layeryard chain id v1");
        let parent = parent.map_or("", |chain| chain.0.as_str());
        let time = layer_time.map_or_else(String::new, |time| time.to_string());
        for part in [parent, &diff_id.to_string(), &time] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Self(hasher.finalize().to_hex().to_string())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_depends_on_parents_content_and_time() {
        let (a, b) = (Digest::sha256(b"a"), Digest::sha256(b"b"));
        let base = ChainId::extend(None, &a, None);
        let chains = [
            ChainId::extend(Some(&base), &b, None),
            ChainId::extend(Some(&base), &b, Some(1)),
            ChainId::extend(None, &b, None),
            ChainId::extend(Some(&base), &a, None),
        ];
        for (index, chain) in chains.iter().enumerate() {
            assert!(!chains[..index].contains(chain), "{index}");
        }
    }
}
