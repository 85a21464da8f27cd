//! Values as every database keeps them.

use std::time::Duration;

use oci::{Digest, RepoName};

use super::{MetadataError, Result};
use crate::config::Limits;

/// The configured delays in the database's unit, microseconds.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) upload_idle: i64,
    pub(super) upload_age: i64,
    pub(super) undelete_window: i64,
    pub(super) review_delay: i64,
    pub(super) delete_delay: i64,
}

impl Times {
    pub(super) fn of(limits: &Limits) -> Self {
        Self {
            upload_idle: micros(limits.upload_idle_max),
            upload_age: micros(limits.upload_age_max),
            undelete_window: micros(limits.undelete_window),
            review_delay: micros(limits.review_delay),
            delete_delay: micros(limits.delete_delay),
        }
    }
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn digest(stored: &[u8]) -> Result<Digest> {
    Digest::from_bytes(stored).map_err(corrupt("digest"))
}

pub(super) fn repository(stored: &str) -> Result<RepoName> {
    stored.parse().map_err(corrupt("repository name"))
}

pub(super) fn corrupt<E>(what: &'static str) -> impl Fn(E) -> MetadataError
where
    E: std::error::Error + Send + Sync + 'static,
{
    move |source| MetadataError::Corrupt {
        what,
        source: Box::new(source),
    }
}

/// A size as a database keeps it. No object is larger than 2⁶³ bytes.
pub(super) fn stored_size(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

pub(super) fn size(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}

/// Which run of the kernel this is: bytes written under another one may have been lost.
pub(crate) fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    match id.trim() {
        // Unknown: never the same as before, so that nothing unsynced is trusted.
        "" => uuid::Uuid::new_v4().to_string(),
        id => id.to_owned(),
    }
}
