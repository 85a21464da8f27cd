//! Cleans up behind crashes, broken uploads and deletions: the only code that deletes bytes.

use std::sync::Arc;
use std::time::Duration;

use super::jobs::{Next, Scope};
use super::{Jobs, Registry, Result};
use crate::report::chain;

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(30);
/// Between two searches for strays.
const SWEEP: Duration = Duration::from_secs(3600);
/// Rows handled in one transaction.
const BATCH: u32 = 100;
/// Batches in one run, so that its time and its failures are told now and then.
const BATCHES: u32 = 100;

impl Registry {
    /// Cleans up for the life of the server. In every process: names are claimed row by row.
    pub(crate) fn keep_clean(self: &Arc<Self>, jobs: &Jobs) {
        let registry = Arc::clone(self);
        jobs.start("janitor", ROUND, Scope::Process, move |turn| {
            let registry = Arc::clone(&registry);
            async move {
                for _ in 0..BATCHES {
                    if !registry.clean_some().await? || turn.is_stopping() {
                        return Ok(Next::Rest);
                    }
                }
                Ok(Next::GoOn)
            }
        });
    }

    /// Reconciles once.
    pub(crate) fn reconcile_soon(self: &Arc<Self>, jobs: &Jobs) {
        let registry = Arc::clone(self);
        jobs.start("reconcile", ROUND, Scope::Singleton, move |_| {
            let registry = Arc::clone(&registry);
            async move {
                registry.reconcile().await?;
                Ok(Next::Done)
            }
        });
    }

    /// Drops now and then what sessions left that ended while the store was away. For a store whose uploads have their
    /// rows before their bytes, so that no running one is taken for a stray.
    pub(crate) fn sweep_uploads(self: &Arc<Self>, jobs: &Jobs) {
        let registry = Arc::clone(self);
        jobs.start("uploads", SWEEP, Scope::Singleton, move |_| {
            let registry = Arc::clone(&registry);
            async move {
                registry.drop_stray_uploads().await?;
                Ok(Next::Rest)
            }
        });
    }

    /// One batch of everything; whether there is more.
    pub(crate) async fn clean_some(&self) -> Result<bool> {
        let expired = self.metadata.expire_uploads(BATCH).await?;
        for upload in &expired {
            if let Err(error) = self.store.discard_upload(*upload).await {
                let error = chain(&error);
                tracing::warn!(%upload, error, "bytes of an expired upload stay until strays are looked for");
            }
        }
        let doomed = self.metadata.claim_doomed(BATCH).await?;
        let claimed = doomed.len();
        let (mut gone, mut away) = (Vec::with_capacity(claimed), None);
        for object in doomed {
            match self.store.delete(&object.key).await {
                Ok(()) => {
                    self.collection.freed(object.size);
                    gone.push(object.key);
                }
                // The others would only wait for it as long.
                Err(error) if error.is_unavailable() => {
                    away = Some(error);
                    break;
                }
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(key = %object.key, error, "an object is not deleted: tried again when its claim ends");
                }
            }
        }
        if !gone.is_empty() {
            self.metadata.forget_doomed(&gone).await?;
        }
        match away {
            Some(error) => Err(error.into()),
            None => Ok(expired.len().max(claimed) >= BATCH as usize),
        }
    }

    /// Drops the bytes of sessions that ended while their bytes were being removed.
    pub(crate) async fn drop_stray_uploads(&self) -> Result<()> {
        let present = self.store.list_uploads().await?;
        for upload in self.metadata.without_session(&present).await? {
            self.store.discard_upload(upload).await?;
        }
        Ok(())
    }

    /// After a power cut, rows may be lost whose objects are there: dooms what no table knows. Names are listed first
    /// and looked up after, so that one which a running upload is about to use is known by then.
    pub(crate) async fn reconcile(&self) -> Result<()> {
        let mut after = None;
        let mut orphans = 0;
        loop {
            let page = self.store.list(after.as_ref()).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            for part in page.chunks(BATCH as usize) {
                orphans += self.metadata.doom_orphans(part).await?;
            }
        }
        tracing::info!(orphans, "reconciled the blob store with the database");
        Ok(())
    }
}
