//! Cleans up behind crashes, broken uploads and deletions: the only code that deletes bytes.

use std::sync::Arc;
use std::time::Duration;

use super::{Registry, Result};
use crate::report::chain;

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(30);
/// Rows handled in one transaction.
const BATCH: u32 = 100;

impl Registry {
    /// Runs for the life of the server.
    pub(crate) async fn keep_clean(self: Arc<Self>) {
        loop {
            if let Err(error) = self.clean_once().await {
                tracing::warn!(error = chain(&error), "clean-up round failed");
            }
            tokio::time::sleep(ROUND).await;
        }
    }

    pub(crate) async fn clean_once(&self) -> Result<()> {
        loop {
            let expired = self.metadata.expire_uploads(BATCH).await?;
            for upload in &expired {
                self.store.discard_upload(*upload).await?;
            }
            if expired.len() < BATCH as usize {
                break;
            }
        }
        loop {
            let keys = self.metadata.claim_doomed(BATCH).await?;
            for key in &keys {
                self.store.delete(key).await?;
            }
            if !keys.is_empty() {
                self.metadata.forget_doomed(&keys).await?;
            }
            if keys.len() < BATCH as usize {
                return Ok(());
            }
        }
    }

    /// Drops the bytes of sessions that ended while their files were being removed. Before the server takes requests,
    /// since a new session has its row before its file only from then on.
    pub(crate) async fn drop_stray_uploads(&self) -> Result<()> {
        let present = self.store.list_uploads().await?;
        for upload in self.metadata.without_session(&present).await? {
            self.store.discard_upload(upload).await?;
        }
        Ok(())
    }

    /// After a power cut, rows may be lost whose objects are there: dooms what no table knows. Names are listed first
    /// and looked up after, so that one which a running upload is about to use is known by then.
    pub(crate) async fn reconcile(self: Arc<Self>) -> Result<()> {
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
