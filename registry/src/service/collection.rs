//! Garbage collection as the server runs it: rounds of reviews, in one process at a time.

mod explain;
mod metrics;
mod pulls;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::api::collection::{Round, Status};
use oci::{Digest, RepoName};

use super::jobs::{Next, Scope, Turn};
use super::{Jobs, Registry, Result};
use crate::metadata::collection::Reviewed;
pub(crate) use metrics::CollectionMetrics;
use metrics::What;
pub(super) use pulls::PullCounts;

/// A round that takes longer goes on in another.
const ROUND_TIME_MAX: Duration = Duration::from_secs(60);
/// Cache records, holds and changes of tags that go in one transaction.
const CACHE_BATCH: u32 = 50;
/// Longer than a build takes. Nothing ends a hold before: a day is short beside the window of an untagged image.
const HELD_FOR: Duration = Duration::from_secs(24 * 3600);
/// What happened to tags is known for so long, and for as long as they can be restored.
const HISTORY_MIN: Duration = Duration::from_secs(90 * 24 * 3600);
/// How often pulls are written down.
const PULLS_INTERVAL: Duration = Duration::from_secs(60);

impl Registry {
    /// Collects for the life of the server.
    pub(crate) fn keep_collecting(self: &Arc<Self>, jobs: &Jobs) {
        let registry = Arc::clone(self);
        jobs.start(
            "gc",
            self.limits.collect_interval,
            Scope::Singleton,
            move |turn| {
                let registry = Arc::clone(&registry);
                async move {
                    let round = registry.collect(|| turn.is_stopping()).await?;
                    if let Some(reason) = &round.paused {
                        tracing::warn!(
                            reason,
                            "garbage collection is paused: `layeryard gc confirm` lets it go on"
                        );
                    }
                    Ok(if round.more { Next::GoOn } else { Next::Rest })
                }
            },
        );
        let registry = Arc::clone(self);
        jobs.start("pulls", PULLS_INTERVAL, Scope::Process, move |_: Turn| {
            let registry = Arc::clone(&registry);
            async move {
                registry.flush_pulls().await?;
                Ok(Next::Rest)
            }
        });
    }

    /// Keeps a manifest that a running build has read, so that what it refers to is there when the build comes to it.
    pub(crate) async fn hold(&self, build: &str, repository: &RepoName, digest: &Digest) -> Result<()> {
        Ok(self.metadata.hold(repository, digest, build, HELD_FOR).await?)
    }

    /// One round: decides about everything that is due.
    pub(crate) async fn collect(&self, stop: impl Fn() -> bool) -> Result<Round> {
        let mut round = Round {
            paused: self.metadata.begin_collection().await?,
            ..Round::default()
        };
        self.collection.paused(round.paused.is_some());
        self.tell_queue().await?;
        if round.paused.is_some() {
            return Ok(round);
        }
        let begun = Instant::now();
        loop {
            let expired = self
                .metadata
                .expire_cache(self.limits.cache_unused_max, CACHE_BATCH)
                .await?;
            let history = HISTORY_MIN.max(self.limits.undelete_window);
            self.metadata.forget(history, CACHE_BATCH).await?;
            let manifests = self.metadata.review_manifests().await?;
            for (repository, digest) in &manifests.removed {
                self.caches.manifests.changed(repository, digest);
            }
            let links = self.metadata.review_links().await?;
            for (repository, digest) in &links.removed {
                self.caches.blobs.changed(repository, digest);
            }
            self.collection.reviewed(What::Manifest, &manifests);
            self.collection.reviewed(What::Blob, &links);
            let idle = expired == 0 && manifests.decided == 0 && links.decided == 0;
            add(&mut round, expired, &manifests, &links);
            if idle {
                break;
            }
            if stop() || begun.elapsed() > ROUND_TIME_MAX {
                round.more = true;
                break;
            }
        }
        self.tell_queue().await?;
        Ok(round)
    }

    async fn tell_queue(&self) -> Result<()> {
        let queue = self.metadata.review_queue().await?;
        self.collection.queue(&queue);
        Ok(())
    }

    pub(crate) async fn collection_status(&self) -> Result<Status> {
        let queue = self.metadata.review_queue().await?;
        let limits = &self.limits;
        Ok(Status {
            paused: self.metadata.collection_paused().await?,
            manifests_due: queue.manifests,
            blobs_due: queue.links,
            oldest_due_seconds: queue.oldest_micros / 1_000_000,
            interval_seconds: limits.collect_interval.as_secs(),
            undelete_window_seconds: limits.undelete_window.as_secs(),
            review_delay_seconds: limits.review_delay.as_secs(),
            delete_delay_seconds: limits.delete_delay.as_secs(),
        })
    }

    /// Lets collection go on after somebody has looked at the clock.
    pub(crate) async fn confirm_collection(&self) -> Result<()> {
        Ok(self.metadata.confirm_collection().await?)
    }
}

fn add(round: &mut Round, expired: u64, manifests: &Reviewed, links: &Reviewed) {
    round.cache_entries_expired += expired;
    round.manifests_purged += manifests.removed.len() as u64;
    round.blobs_unlinked += links.removed.len() as u64;
    round.blobs_doomed += links.doomed;
    round.bytes_doomed += links.doomed_bytes;
    let count = |kept: &[&'static str], what: &str, counts: &mut BTreeMap<String, u64>| {
        for word in kept {
            *counts.entry(format!("{what} kept: {word}")).or_default() += 1;
        }
    };
    count(&manifests.kept, "manifest", &mut round.kept);
    count(&links.kept, "blob", &mut round.kept);
}
