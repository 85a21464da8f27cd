//! The builder's only doors: four traits that its host implements (crate `cli` does it over crate `client`).
//!
//! Architecture invariant: nothing in this crate knows a registry, HTTP or a database.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use oci::{Descriptor, Digest, Platform, RepoName, Tag};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncRead;

/// A failure on the host's side, with the host's own account of it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ServiceError {
    pub message: String,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Reads images.
#[async_trait]
pub trait ImageSource: Send + Sync {
    /// Finds the image of a name as the user wrote it, for a platform.
    async fn resolve(&self, reference: &str, platform: &Platform) -> Result<ResolvedImage, ServiceError>;
    /// Opens a layer's bytes (compressed, as stored) from `offset`. The caller verifies the digest.
    async fn open(
        &self,
        repository: &RepoName,
        layer: &Descriptor,
        offset: u64,
    ) -> Result<Pin<Box<dyn AsyncRead + Send>>, ServiceError>;
}

#[derive(Clone, Debug)]
pub struct ResolvedImage {
    /// Where the image's blobs can be read and mounted from.
    pub repository: RepoName,
    /// The platform's manifest.
    pub digest: Digest,
    pub manifest: Bytes,
    pub media_type: String,
    pub config: Bytes,
}

/// Writes an image.
#[async_trait]
pub trait ImageSink: Send + Sync {
    /// Whether the repository being built has the blob.
    async fn has_blob(&self, digest: &Digest) -> Result<bool, ServiceError>;
    /// Makes a blob of another repository available without moving bytes; false if that is not possible.
    async fn mount(&self, from: &RepoName, digest: &Digest) -> Result<bool, ServiceError>;
    /// Stores a small blob.
    async fn put_blob(&self, digest: &Digest, data: Bytes) -> Result<(), ServiceError>;
    /// Begins a blob whose digest is known only at its end.
    async fn start_upload(&self) -> Result<Box<dyn BlobUpload>, ServiceError>;
    /// Stores the manifest under its digest.
    async fn put_manifest(&self, media_type: &str, manifest: Bytes) -> Result<Digest, ServiceError>;
    /// Stores the manifest in `repository` (mounting the blobs there if it is another one) under `tag`.
    async fn tag(
        &self,
        repository: &RepoName,
        tag: &Tag,
        media_type: &str,
        manifest: Bytes,
    ) -> Result<(), ServiceError>;
}

/// A blob on its way. Dropping it abandons the upload.
#[async_trait]
pub trait BlobUpload: Send {
    async fn write(&mut self, data: Bytes) -> Result<(), ServiceError>;
    /// Returns when the blob is durable under `digest`.
    async fn finish(self: Box<Self>, digest: &Digest) -> Result<(), ServiceError>;
}

/// Remembers what steps made.
#[async_trait]
pub trait CacheStore: Send + Sync {
    async fn get(&self, keys: &[CacheKey]) -> Result<BTreeMap<CacheKey, StepRecord>, ServiceError>;
    async fn put(&self, key: &CacheKey, record: &StepRecord) -> Result<(), ServiceError>;
    /// Content digests of subtrees, by (chain id, selector).
    async fn memo_get(&self, keys: &[String]) -> Result<BTreeMap<String, String>, ServiceError>;
    async fn memo_put(&self, key: &str, value: &str) -> Result<(), ServiceError>;
}

/// A step's key: 64 hex digits of blake3.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CacheKey(pub String);

/// What a step made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    pub layer: Descriptor,
    pub diff_id: Digest,
    /// The chain of layers that the step ran on. Commands that write something else each time make chains that differ
    /// under one key; a layer belongs on its own.
    pub below: String,
    /// The layer's logical time, seconds since 1970.
    pub layer_time: i64,
    /// Instants of materialisation (nanoseconds since 1970, lowest and highest) of the step that made it.
    pub inputs: BTreeMap<String, String>,
}

/// The build context as a tree on this node's disk, made by the host before the build starts.
#[async_trait]
pub trait ContextSource: Send + Sync {
    /// The directory that `COPY` and `ADD` read. Fetched at the first call; builds that never copy never fetch it.
    async fn root(&self) -> Result<&Path, ServiceError>;
}

impl ServiceError {
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            source: None,
        }
    }

    /// Wraps a host's error, message and all.
    pub fn from_error(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self {
            message: error.to_string(),
            source: Some(Box::new(error)),
        }
    }
}
