//! Cache keys: what a step is made of, hashed (decisions/builder.md, section 5).

use std::collections::BTreeMap;

use crate::layer::FORMAT;
use crate::services::CacheKey;

/// Separates these hashes from every other use of blake3.
const DOMAIN: &str = "layeryard build step v1";
/// Hex digits that name an input in a record: enough to see that it changed.
const INPUT_DIGITS: usize = 16;

/// The hash of a step and of everything below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(pub(super) [u8; 32]);

impl Key {
    pub(super) fn cache_key(&self) -> CacheKey {
        CacheKey(blake3::Hash::from_bytes(self.0).to_hex().to_string())
    }
}

/// Builds a key from named inputs; the names tell later why a step was not found.
pub(super) struct KeyBuilder {
    hasher: blake3::Hasher,
    inputs: BTreeMap<String, String>,
}

impl KeyBuilder {
    pub(super) fn new(operation: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(DOMAIN);
        frame(&mut hasher, &FORMAT.to_le_bytes());
        frame(&mut hasher, operation.as_bytes());
        Self {
            hasher,
            inputs: BTreeMap::new(),
        }
    }

    /// Order counts; every value is framed by its length, so no two lists of inputs hash alike.
    pub(super) fn input(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        frame(&mut self.hasher, name.as_bytes());
        frame(&mut self.hasher, value);
        let digest = blake3::hash(value).to_hex();
        self.inputs
            .insert(name.to_owned(), digest[..INPUT_DIGITS].to_owned());
        self
    }

    pub(super) fn inputs<V: AsRef<[u8]>>(self, name: &str, values: impl IntoIterator<Item = V>) -> Self {
        let mut list = Vec::new();
        for value in values {
            let value = value.as_ref();
            list.extend_from_slice(&(value.len() as u64).to_le_bytes());
            list.extend_from_slice(value);
        }
        self.input(name, list)
    }

    pub(super) fn finish(self) -> (Key, BTreeMap<String, String>) {
        (Key(*self.hasher.finalize().as_bytes()), self.inputs)
    }
}

fn frame(hasher: &mut blake3::Hasher, value: &[u8]) {
    hasher.update(&(value.len() as u64).to_le_bytes());
    hasher.update(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_lists_apart_and_name_their_inputs() {
        let key = |first: &[&str], second: &[&str]| {
            KeyBuilder::new("run")
                .inputs("args", first)
                .inputs("env", second)
                .finish()
        };
        let (a, inputs) = key(&["a", "b"], &[]);
        for other in [
            key(&["ab"], &[]).0,
            key(&["a"], &["b"]).0,
            key(&["a", "", "b"], &[]).0,
        ] {
            assert_ne!(a, other);
        }
        assert_eq!(inputs.keys().collect::<Vec<_>>(), ["args", "env"]);
        assert_eq!(inputs["args"].len(), INPUT_DIGITS);
    }

    /// A change here invalidates every cache: it belongs to a new format.
    #[test]
    fn keys_are_golden() {
        let (key, _) = KeyBuilder::new("run")
            .input("parent", [7; 32])
            .inputs("args", ["sh", "-c"])
            .finish();
        assert_eq!(
            key.cache_key().0,
            "71f639627b3b33f96074bec5403a85103f0856524f9dbc6ea196854a6c71a19c"
        );
    }
}
