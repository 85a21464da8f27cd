//! Reading blobs again, and taking broken ones out of service.

use async_trait::async_trait;
use oci::Digest;

use super::Result;
use crate::storage::ObjectName;

#[async_trait]
pub(crate) trait Integrity: Send + Sync {
    /// A page of live blobs by id.
    async fn blobs_after(&self, after: i64, limit: u32) -> Result<Vec<BlobToVerify>>;
    /// A live blob.
    async fn blob_to_verify(&self, digest: &Digest) -> Result<Option<BlobToVerify>>;
    /// Records that blobs were found right.
    async fn mark_verified(&self, blobs: &[i64]) -> Result<()>;
    /// Takes a blob out of service while it lies under `key`: it counts as not there, so that a push heals it. Durable.
    async fn quarantine(&self, blob: i64, key: &ObjectName) -> Result<bool>;
    /// How far a job that goes on over restarts has come, in its own words.
    async fn progress(&self, job: &str) -> Result<Option<String>>;
    async fn set_progress(&self, job: &str, value: &str) -> Result<()>;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlobToVerify {
    pub(crate) id: i64,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) key: ObjectName,
}
