//! Verification: every blob is read again, slowly, and what is not what was pushed is taken out of service.
//!
//! A wrong verdict would cost more than a late one. So a mismatch is read twice, an object that isn't there is looked for
//! again after an hour, other failures conclude nothing, and when much is wrong at once everything stops: that is rather a
//! disk that was not mounted. A quarantined blob counts as not there, so that clients push it again, which heals it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client::api::verify::{VerifyState, VerifyStatus};
use futures::TryStreamExt;
use oci::{Digest, Hasher};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::jobs::{JobError, Next, Scope, Turn};
use super::{Jobs, Registry, Result};
use crate::config::VerifyConfig;
use crate::metadata::BlobToVerify;
use crate::report::chain;
use crate::storage::StorageError;

const JOB: &str = "verify";
/// How soon a verification that was asked for begins.
const ROUND: Duration = Duration::from_secs(2);
const PAGE: u32 = 32;
/// More broken blobs than this, or than one in a hundred, are no accident of single blobs.
const BROKEN_MAX: usize = 10;
/// Below so many blobs a share says nothing.
const SHARE_FROM: u64 = 1000;
const SHARE: u64 = 100;

/// What a verification remembers over restarts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Progress {
    status: VerifyStatus,
    /// The last blob that was read.
    after: i64,
    /// When the suspects are looked for again, in seconds since 1970.
    again_at: u64,
}

enum Verdict {
    Right,
    Corrupt,
    Missing,
    /// The store did not answer, or another version of the blob came.
    Unknown,
}

impl Registry {
    /// Verifies whenever it is asked to, for the life of the server.
    pub(crate) fn keep_verifying(self: &Arc<Self>, jobs: &Jobs, config: &VerifyConfig) {
        let (registry, config) = (Arc::clone(self), config.clone());
        jobs.start(JOB, ROUND, Scope::Singleton, move |turn| {
            let (registry, config) = (Arc::clone(&registry), config.clone());
            async move { registry.verify_some(&config, &turn).await }
        });
    }

    pub(crate) async fn verification(&self) -> Result<VerifyStatus> {
        Ok(self.verify_progress().await?.status)
    }

    /// Begins one, unless one is under way.
    pub(crate) async fn start_verification(&self) -> Result<VerifyStatus> {
        let mut progress = self.verify_progress().await?;
        if progress.status.state.is_over() {
            progress = Progress::default();
            progress.status.state = VerifyState::Running;
            self.keep_progress(&progress).await?;
        }
        Ok(progress.status)
    }

    pub(crate) async fn stop_verification(&self) -> Result<VerifyStatus> {
        let mut progress = self.verify_progress().await?;
        if !progress.status.state.is_over() {
            progress.status.state = VerifyState::Stopped;
            progress.status.alarm = Some("it was stopped by request".to_owned());
            self.keep_progress(&progress).await?;
        }
        Ok(progress.status)
    }

    /// A page, or the second look at what was missing.
    pub(crate) async fn verify_some(&self, config: &VerifyConfig, turn: &Turn) -> Result<Next, JobError> {
        let mut progress = self.verify_progress().await?;
        match progress.status.state {
            VerifyState::Running => self.verify_page(config, turn, &mut progress).await?,
            VerifyState::Waiting if progress.again_at <= now_seconds() => {
                self.look_again(config, &mut progress).await?;
            }
            _ => return Ok(Next::Rest),
        }
        // Whoever stopped it meanwhile is heard.
        if self.verify_progress().await?.status.state != VerifyState::Stopped {
            self.keep_progress(&progress).await?;
        }
        Ok(Next::GoOn)
    }

    async fn verify_page(&self, config: &VerifyConfig, turn: &Turn, progress: &mut Progress) -> Result<()> {
        let page = self.metadata.blobs_after(progress.after, PAGE).await?;
        let mut right = Vec::new();
        for blob in &page {
            if turn.is_stopping() || progress.status.state != VerifyState::Running {
                break;
            }
            match self.judge(blob, config.rate_bytes).await? {
                Verdict::Right => {
                    right.push(blob.id);
                    progress.status.verified += 1;
                    progress.status.bytes += blob.size;
                }
                Verdict::Corrupt => self.condemn(blob, progress, Found::Corrupt).await?,
                Verdict::Missing => progress.status.suspects.push(blob.digest),
                Verdict::Unknown => progress.status.unreadable += 1,
            }
            progress.after = blob.id;
        }
        if !right.is_empty() {
            self.metadata.mark_verified(&right).await?;
        }
        if page.is_empty() {
            let wait = !progress.status.suspects.is_empty();
            progress.status.state = if wait {
                VerifyState::Waiting
            } else {
                VerifyState::Finished
            };
            progress.again_at = now_seconds() + config.missing_again_after.as_secs();
        }
        Ok(())
    }

    async fn look_again(&self, config: &VerifyConfig, progress: &mut Progress) -> Result<()> {
        progress.status.state = VerifyState::Finished;
        for digest in std::mem::take(&mut progress.status.suspects) {
            // Collected, or pushed again, or quarantined meanwhile: then all is well.
            let Some(blob) = self.metadata.blob_to_verify(&digest).await? else {
                continue;
            };
            match self.judge(&blob, config.rate_bytes).await? {
                Verdict::Missing => self.condemn(&blob, progress, Found::Missing).await?,
                Verdict::Corrupt => self.condemn(&blob, progress, Found::Corrupt).await?,
                Verdict::Right => progress.status.verified += 1,
                Verdict::Unknown => progress.status.unreadable += 1,
            }
            if progress.status.state == VerifyState::Stopped {
                break;
            }
        }
        Ok(())
    }

    /// Quarantines a blob, unless too many are broken.
    async fn condemn(&self, blob: &BlobToVerify, progress: &mut Progress, found: Found) -> Result<()> {
        let status = &mut progress.status;
        let broken = status.corrupt.len() + status.missing.len() + 1;
        let seen = status.verified + broken as u64;
        let share = seen >= SHARE_FROM && broken as u64 * SHARE > seen;
        if broken > BROKEN_MAX || share {
            let alarm = format!(
                "{broken} of {seen} blobs are broken: rather the disk or the mount than the blobs; nothing more is \
                 quarantined"
            );
            tracing::error!(alarm, "verification stops");
            status.alarm = Some(alarm);
            status.state = VerifyState::Stopped;
            return Ok(());
        }
        if self.metadata.quarantine(blob.id, &blob.key).await? {
            tracing::error!(digest = %blob.digest, key = %blob.key, ?found, "a blob is quarantined: push it again");
            match found {
                Found::Corrupt => status.corrupt.push(blob.digest),
                Found::Missing => status.missing.push(blob.digest),
            }
        }
        Ok(())
    }

    async fn judge(&self, blob: &BlobToVerify, rate_bytes: u64) -> Result<Verdict> {
        for look in 0..2 {
            match self.hash(blob, rate_bytes).await {
                Ok(digest) if digest == blob.digest => return Ok(Verdict::Right),
                Ok(_) => {}
                Err(StorageError::Truncated { .. }) => {}
                Err(error) if error.is_missing() => {
                    // Collected while it was read?
                    let now = self.metadata.blob_to_verify(&blob.digest).await?;
                    let same = now.is_some_and(|now| now.key == blob.key);
                    return Ok(if same { Verdict::Missing } else { Verdict::Right });
                }
                Err(error) => {
                    tracing::warn!(digest = %blob.digest, look, error = chain(&error), "a blob was not read");
                    return Ok(Verdict::Unknown);
                }
            }
        }
        Ok(Verdict::Corrupt)
    }

    /// Reads a blob no faster than allowed.
    async fn hash(&self, blob: &BlobToVerify, rate_bytes: u64) -> Result<Digest, StorageError> {
        let stored = self.store.size(&blob.key).await?;
        if stored != blob.size {
            return Err(StorageError::Truncated {
                key: blob.key.clone(),
                missing: blob.size.abs_diff(stored),
            });
        }
        let mut hasher = Hasher::new(blob.digest.algorithm());
        let begun = Instant::now();
        let mut read = 0_u64;
        let mut stream = self.store.read(&blob.key, 0..blob.size).await?;
        while let Some(piece) = stream.try_next().await? {
            hasher.update(&piece);
            read += piece.len() as u64;
            let due = Duration::from_secs_f64(read as f64 / rate_bytes as f64);
            if due > begun.elapsed() {
                tokio::time::sleep_until(begun + due).await;
            } else {
                tokio::task::yield_now().await;
            }
        }
        Ok(hasher.finish())
    }

    async fn verify_progress(&self) -> Result<Progress> {
        let stored = self.metadata.progress(JOB).await?;
        // Of another version: begin anew.
        Ok(stored
            .and_then(|stored| serde_json::from_str(&stored).ok())
            .unwrap_or_default())
    }

    async fn keep_progress(&self, progress: &Progress) -> Result<()> {
        let text = serde_json::to_string(progress).unwrap_or_default();
        Ok(self.metadata.set_progress(JOB, &text).await?)
    }
}

#[derive(Clone, Copy, Debug)]
enum Found {
    Corrupt,
    Missing,
}

fn now_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
