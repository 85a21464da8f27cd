//! The builder's step cache: records that keep their layer alive, and memos, each kept by repository.

use std::collections::BTreeMap;

use client::api::{CacheFound, CacheLookup, CacheRecord, MemosFound};
use oci::{Digest, RepoName};

use super::{Registry, RegistryError};

/// Keys of one look-up.
const KEYS_MAX: usize = 10_000;
/// The length of a key: a 256-bit hash in hex.
const KEY_LEN: usize = 64;
/// The longest record or memo.
const VALUE_BYTES_MAX: usize = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum CacheError {
    #[error("cache key {0:?} is invalid: 64 lower-case hex digits")]
    Key(String),
    #[error("{0} keys in one look-up: at most {KEYS_MAX}")]
    TooManyKeys(usize),
    #[error("a cache record of {0} bytes is too long: at most {VALUE_BYTES_MAX}")]
    TooLong(usize),
    #[error("layer {digest} is not in repository {repository}: push it before its record")]
    LayerUnknown { repository: RepoName, digest: Digest },
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

type Result<T, E = CacheError> = std::result::Result<T, E>;

impl Registry {
    pub(crate) async fn find_cached(
        &self,
        repository: &RepoName,
        lookup: &CacheLookup,
    ) -> Result<CacheFound> {
        check_lookup(lookup)?;
        let found = self.metadata.find_cache_records(repository, &lookup.keys).await;
        let mut records = BTreeMap::new();
        for (key, text) in found.map_err(RegistryError::from)? {
            match serde_json::from_str::<CacheRecord>(&text) {
                Ok(record) => {
                    records.insert(key, record);
                }
                // A record of another version is a miss.
                Err(error) => tracing::warn!(%repository, key, %error, "a cache record is unreadable"),
            }
        }
        Ok(CacheFound { records })
    }

    /// Stores a record; its layer must be in the repository and stays as long as the record.
    pub(crate) async fn put_cached(
        &self,
        repository: &RepoName,
        key: &str,
        record: &CacheRecord,
    ) -> Result<()> {
        self.require_writable(repository)?;
        check_key(key)?;
        let text = serde_json::to_string(record).unwrap_or_default();
        check_length(&text)?;
        let blobs = [record.layer.digest];
        let missing = self
            .metadata
            .put_cache_record(repository, key, &text, &blobs)
            .await;
        match missing.map_err(RegistryError::from)?.first() {
            Some(digest) => Err(CacheError::LayerUnknown {
                repository: repository.clone(),
                digest: *digest,
            }),
            None => Ok(()),
        }
    }

    pub(crate) async fn find_memos(&self, repository: &RepoName, lookup: &CacheLookup) -> Result<MemosFound> {
        check_lookup(lookup)?;
        let found = self.metadata.find_memos(repository, &lookup.keys).await;
        Ok(MemosFound {
            memos: found.map_err(RegistryError::from)?.into_iter().collect(),
        })
    }

    pub(crate) async fn put_memo(&self, repository: &RepoName, key: &str, value: &str) -> Result<()> {
        check_key(key)?;
        check_length(value)?;
        let put = self.metadata.put_memo(repository, key, value).await;
        Ok(put.map_err(RegistryError::from)?)
    }
}

fn check_lookup(lookup: &CacheLookup) -> Result<()> {
    if lookup.keys.len() > KEYS_MAX {
        return Err(CacheError::TooManyKeys(lookup.keys.len()));
    }
    lookup.keys.iter().try_for_each(|key| check_key(key))
}

fn check_key(key: &str) -> Result<()> {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if key.len() == KEY_LEN && key.bytes().all(hex) {
        return Ok(());
    }
    Err(CacheError::Key(key.to_owned()))
}

fn check_length(value: &str) -> Result<()> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(CacheError::TooLong(value.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_hashes() {
        assert!(check_key(&"0af".repeat(22)[..64]).is_ok());
        for bad in ["", "../..", &"A".repeat(64), &"a".repeat(63), &"é".repeat(32)] {
            assert!(check_key(bad).is_err(), "{bad:?}");
        }
        let lookup = CacheLookup {
            keys: vec!["0".repeat(64); KEYS_MAX + 1],
        };
        assert!(matches!(check_lookup(&lookup), Err(CacheError::TooManyKeys(_))));
    }
}
