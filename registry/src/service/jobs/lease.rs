//! A singleton's lease, as its process sees it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::metadata::MetadataStore;
use crate::report::chain;

/// How long a process is believed to live without a sign of it.
const LIFE: Duration = Duration::from_secs(30);

pub(super) struct Lease {
    metadata: Arc<dyn MetadataStore>,
    name: &'static str,
    holder: String,
    held: Option<Held>,
}

#[derive(Clone, Copy)]
struct Held {
    epoch: i64,
    /// The start of the last renewal that succeeded: by the database's clock the lease lasts longer than from here.
    since: Instant,
    life: Duration,
}

impl Lease {
    pub(super) fn new(metadata: Arc<dyn MetadataStore>, name: &'static str, holder: String) -> Self {
        Self {
            metadata,
            name,
            holder,
            held: None,
        }
    }

    /// The epoch, if this process has the lease for long enough to begin something.
    pub(super) async fn hold(&mut self) -> Option<i64> {
        if let Some(held) = self.held.filter(|held| held.since.elapsed() < LIFE / 3) {
            return Some(held.epoch);
        }
        self.held = None;
        self.renew(LIFE).await;
        self.held.map(|held| held.epoch)
    }

    /// Renews as long as that succeeds; returns when the lease may be lost.
    pub(super) async fn keep(&mut self) {
        while let Some(held) = self.held {
            tokio::time::sleep_until(held.since + LIFE / 3).await;
            let end = held.since + LIFE * 2 / 3;
            while let Ok(false) = tokio::time::timeout_at(end, self.renew(LIFE)).await
                && self.held.is_some()
                && Instant::now() < end
            {
                tokio::time::sleep(LIFE / 30).await;
            }
            if Instant::now() >= end {
                self.held = None;
            }
        }
    }

    /// Keeps others from running the job again for `rest`.
    pub(super) async fn keep_for(&mut self, rest: Duration) {
        if let Some(held) = self.held
            && held.life < rest
        {
            self.renew(rest).await;
        }
    }

    pub(super) async fn release(&mut self) {
        if self.held.take().is_some()
            && let Err(error) = self.metadata.release_lease(self.name, &self.holder).await
        {
            // It runs out by itself.
            tracing::debug!(job = self.name, error = chain(&error), "a lease was not released");
        }
    }

    /// False: the database could not be asked. Otherwise `held` says who has it.
    async fn renew(&mut self, life: Duration) -> bool {
        let since = Instant::now();
        match self.metadata.hold_lease(self.name, &self.holder, life).await {
            Ok(epoch) => {
                self.held = epoch.map(|epoch| Held { epoch, since, life });
                true
            }
            Err(error) => {
                tracing::warn!(job = self.name, error = chain(&error), "a lease was not renewed");
                false
            }
        }
    }
}
