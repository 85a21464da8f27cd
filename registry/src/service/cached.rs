//! What is read most, in memory. Right for one process over its own database: nobody else changes it.
//!
//! An entry carries the generation of its repository, which is read before the database is and bumped after a change
//! has committed and before that is answered. So whoever reads after an answer never sees what was before it, and a
//! slow reader can't put an old value back.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::sync::Cache;
use oci::{Digest, Reference, RepoName};

use crate::metadata::{StoredBlob, StoredManifest};

/// Manifest bytes kept in memory.
const MANIFEST_CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// Blob locations kept in memory.
const BLOB_CACHE_ENTRIES: u64 = 16 * 1024;
/// Entries live for less than half the review delay, since reading them does not put a review off.
const ENTRY_LIFE: Duration = Duration::from_secs(6 * 3600);
/// Generations are kept for hashes of names; two repositories that share one only lose entries too early.
const GENERATIONS: usize = 4096;

pub(super) struct Caches {
    pub(super) manifests: Cached<StoredManifest>,
    pub(super) blobs: Cached<StoredBlob>,
}

/// Values of one kind by (repository, name).
pub(super) struct Cached<V> {
    entries: Cache<Box<str>, Entry<V>>,
    generations: Box<[AtomicU64]>,
    hasher: RandomState,
}

struct Entry<V> {
    generation: u64,
    value: Arc<V>,
}

impl<V> Clone for Entry<V> {
    fn clone(&self) -> Self {
        Self { generation: self.generation, value: Arc::clone(&self.value) }
    }
}

/// Allows one value to be put, if nothing has changed since.
pub(super) struct Slot {
    key: Box<str>,
    generation: u64,
}

impl Caches {
    pub(super) fn new() -> Self {
        let weigh = |key: &str, manifest: &StoredManifest| key.len() + manifest.bytes.len() + 200;
        Self {
            manifests: Cached::new(MANIFEST_CACHE_BYTES, weigh),
            blobs: Cached::new(BLOB_CACHE_ENTRIES, |_, _| 1),
        }
    }
}

impl<V: Send + Sync + 'static> Cached<V> {
    fn new(capacity: u64, weigh: fn(&str, &V) -> usize) -> Self {
        Self {
            entries: Cache::builder()
                .max_capacity(capacity)
                .time_to_live(ENTRY_LIFE)
                .weigher(move |key: &Box<str>, entry: &Entry<V>| {
                    u32::try_from(weigh(key, &entry.value)).unwrap_or(u32::MAX)
                })
                .build(),
            generations: (0..GENERATIONS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }

    /// The value, or the slot for what the database says.
    pub(super) fn get(&self, repository: &RepoName, name: &CacheKey) -> Result<Arc<V>, Slot> {
        let generation = self.generation(repository).load(Ordering::Acquire);
        let key = format!("{repository}/{name}");
        match self.entries.get(key.as_str()) {
            Some(entry) if entry.generation == generation => Ok(entry.value),
            _ => Err(Slot { key: key.into_boxed_str(), generation }),
        }
    }

    pub(super) fn put(&self, slot: Slot, value: Arc<V>) {
        self.entries.insert(slot.key, Entry { generation: slot.generation, value });
    }

    /// To be called after the change has committed and before it is answered.
    pub(super) fn changed(&self, repository: &RepoName) {
        self.generation(repository).fetch_add(1, Ordering::AcqRel);
    }

    fn generation(&self, repository: &RepoName) -> &AtomicU64 {
        let hash = self.hasher.hash_one(repository.as_str());
        &self.generations[hash as usize % GENERATIONS]
    }
}

/// What is looked up in a repository. Tags have no `:`, so the two kinds don't meet.
pub(super) enum CacheKey<'a> {
    Digest(&'a Digest),
    Reference(&'a Reference),
}

impl std::fmt::Display for CacheKey<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Digest(digest) => digest.fmt(f),
            Self::Reference(reference) => reference.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_reader_can_not_put_back_what_was_before_a_change() {
        let cached: Cached<u32> = Cached::new(100, |_, _| 1);
        let repository: RepoName = "app".parse().unwrap();
        let tag = Reference::Tag("latest".parse().unwrap());
        let key = CacheKey::Reference(&tag);
        let Err(slow) = cached.get(&repository, &key) else { panic!("empty") };
        cached.changed(&repository);
        cached.put(slow, Arc::new(1));
        let Err(fresh) = cached.get(&repository, &key) else { panic!("the old value is served") };
        cached.put(fresh, Arc::new(2));
        assert_eq!(cached.get(&repository, &key).ok(), Some(Arc::new(2)));
        cached.changed(&repository);
        assert!(cached.get(&repository, &key).is_err());
    }
}
