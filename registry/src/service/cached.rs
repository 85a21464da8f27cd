//! What is read most, in memory. Right for one process over its own database: nobody else changes it. Over a shared
//! one everything is asked anew.
//!
//! An entry carries the generation of its name, which is read before the database is and bumped after a change has
//! committed and before that is answered. So whoever reads after an answer never sees what was before it, and a slow
//! reader can't put an old value back.

use std::fmt::Display;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::sync::Cache;
use oci::{Digest, RepoName};

use crate::metadata::{StoredBlob, StoredManifest};

/// Manifest bytes kept in memory.
const MANIFEST_CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// Tags kept in memory; each takes some 300 bytes.
const TAG_CACHE_ENTRIES: u64 = 64 * 1024;
/// Blob locations kept in memory.
const BLOB_CACHE_ENTRIES: u64 = 16 * 1024;
/// Generations are kept for hashes of names; two names that share one only lose entries too early.
const GENERATIONS: usize = 4096;

pub(super) struct Caches {
    /// By digest.
    pub(super) manifests: Cached<StoredManifest>,
    /// What tags name. Apart from the manifests, because many tags may name one.
    pub(super) tags: Cached<Digest>,
    pub(super) blobs: Cached<StoredBlob>,
}

/// Values of one kind by (repository, name).
pub(super) struct Cached<V> {
    entries: Cache<Box<str>, Entry<V>>,
    generations: Box<[AtomicU64]>,
    hasher: RandomState,
    enabled: bool,
}

struct Entry<V> {
    generation: u64,
    value: Arc<V>,
}

impl<V> Clone for Entry<V> {
    fn clone(&self) -> Self {
        Self {
            generation: self.generation,
            value: Arc::clone(&self.value),
        }
    }
}

/// Allows one value to be put, if nothing has changed since.
pub(super) struct Slot {
    key: Box<str>,
    generation: u64,
}

impl Caches {
    /// Entries live for a quarter of the review delay: the database puts a review off when it has less than half of it
    /// left, reading them does not. Over a `shared` database nothing is kept.
    pub(super) fn new(review_delay: Duration, shared: bool) -> Self {
        let life = review_delay / 4;
        let capacity = |wanted| if shared { 0 } else { wanted };
        let weigh = |key: &str, manifest: &StoredManifest| key.len() + manifest.bytes.len() + 200;
        Self {
            manifests: Cached::new(capacity(MANIFEST_CACHE_BYTES), life, weigh),
            tags: Cached::new(capacity(TAG_CACHE_ENTRIES), life, |_, _| 1),
            blobs: Cached::new(capacity(BLOB_CACHE_ENTRIES), life, |_, _| 1),
        }
    }
}

impl<V: Send + Sync + 'static> Cached<V> {
    fn new(capacity: u64, life: Duration, weigh: fn(&str, &V) -> usize) -> Self {
        Self {
            entries: Cache::<Box<str>, Entry<V>>::builder()
                .max_capacity(capacity)
                .time_to_live(life)
                .weigher(move |key, entry| u32::try_from(weigh(key, &entry.value)).unwrap_or(u32::MAX))
                .build(),
            generations: (0..GENERATIONS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
            enabled: capacity > 0,
        }
    }

    /// The value, or the slot for what the database says.
    pub(super) fn get(&self, repository: &RepoName, name: impl Display) -> Result<Arc<V>, Slot> {
        let key = key(repository, name);
        let generation = self.generation(&key).load(Ordering::Acquire);
        match self.entries.get(key.as_str()) {
            Some(entry) if entry.generation == generation => Ok(entry.value),
            _ => Err(Slot {
                key: key.into_boxed_str(),
                generation,
            }),
        }
    }

    pub(super) fn put(&self, slot: Slot, value: Arc<V>) {
        if !self.enabled {
            return;
        }
        self.entries.insert(
            slot.key,
            Entry {
                generation: slot.generation,
                value,
            },
        );
    }

    /// To be called after the change has committed and before it is answered.
    pub(super) fn changed(&self, repository: &RepoName, name: impl Display) {
        self.generation(&key(repository, name))
            .fetch_add(1, Ordering::AcqRel);
    }

    /// As [`Cached::changed`], where the names are not known.
    pub(super) fn all_changed(&self) {
        for generation in &self.generations {
            generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn generation(&self, key: &str) -> &AtomicU64 {
        let hash = self.hasher.hash_one(key);
        &self.generations[hash as usize % GENERATIONS]
    }
}

fn key(repository: &RepoName, name: impl Display) -> String {
    format!("{repository}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_reader_can_not_put_back_what_was_before_a_change() {
        let cached: Cached<u32> = Cached::new(100, Duration::from_secs(60), |_, _| 1);
        let repository: RepoName = "app".parse().unwrap();
        let get = || cached.get(&repository, "latest");
        let Err(slow) = get() else { panic!("empty") };
        cached.changed(&repository, "latest");
        cached.put(slow, Arc::new(1));
        let Err(fresh) = get() else {
            panic!("the old value is served")
        };
        cached.put(fresh, Arc::new(2));
        assert_eq!(get().ok(), Some(Arc::new(2)));
        cached.changed(&repository, "latest");
        let Err(slot) = get() else {
            panic!("the old value is served")
        };
        cached.put(slot, Arc::new(3));
        cached.all_changed();
        assert!(get().is_err());
    }
}
