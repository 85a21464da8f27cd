//! Who is pulled, counted in memory and written down now and then: a crash loses a minute's counts.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use oci::{Digest, RepoName};
use parking_lot::Mutex;

use crate::metadata::collection::Pulls;
use crate::service::{Registry, Result};

/// Locks, so that readers at once rarely want the same.
const SHARDS: usize = 16;
/// Manifests counted between two times of writing, a shard; more are not noticed.
const MANIFESTS_MAX: usize = 10_000;

pub(in crate::service) struct PullCounts {
    shards: Box<[Mutex<Counts>]>,
    hasher: RandomState,
}

/// Few repositories have the same manifest.
type Counts = HashMap<Digest, Vec<(RepoName, u64)>>;

impl PullCounts {
    pub(in crate::service) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    pub(in crate::service) fn count(&self, repository: &RepoName, digest: &Digest) {
        let shard = self.hasher.hash_one(digest) as usize % SHARDS;
        let mut counts = self.shards[shard].lock();
        if counts.len() >= MANIFESTS_MAX && !counts.contains_key(digest) {
            return;
        }
        let repositories = counts.entry(*digest).or_default();
        match repositories.iter_mut().find(|(name, _)| name == repository) {
            Some((_, count)) => *count += 1,
            None => repositories.push((repository.clone(), 1)),
        }
    }

    fn take(&self) -> Vec<Pulls> {
        let mut taken = Vec::new();
        for shard in &self.shards {
            let counts = std::mem::take(&mut *shard.lock());
            for (digest, repositories) in counts {
                taken.extend(repositories.into_iter().map(|(repository, count)| Pulls {
                    repository,
                    digest,
                    count,
                }));
            }
        }
        taken
    }
}

impl Registry {
    /// Notes that a manifest was pulled.
    pub(crate) fn pulled(&self, repository: &RepoName, digest: &Digest) {
        self.pulls.count(repository, digest);
    }

    /// Writes down what was pulled since the last time.
    pub(crate) async fn flush_pulls(&self) -> Result<()> {
        let pulls = self.pulls.take();
        if pulls.is_empty() {
            return Ok(());
        }
        Ok(self.metadata.record_pulls(pulls).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulls_are_counted_by_repository_and_told_once() {
        let counts = PullCounts::new();
        let digest = Digest::sha256(b"image");
        let (a, b): (RepoName, RepoName) = ("a".parse().unwrap(), "b".parse().unwrap());
        counts.count(&a, &digest);
        counts.count(&a, &digest);
        counts.count(&b, &digest);
        let mut taken: Vec<_> = counts
            .take()
            .into_iter()
            .map(|pulls| (pulls.repository, pulls.count))
            .collect();
        taken.sort();
        assert_eq!(taken, [(a, 2), (b, 1)]);
        assert!(counts.take().is_empty());
    }
}
