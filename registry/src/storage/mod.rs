//! Where the bytes of blobs lie.
//!
//! An object is written once under a unique name and never changed; the name is never used again. Which digest an
//! object has, and whether it may be deleted, only the metadata store knows.

mod error;
#[cfg(test)]
pub(crate) mod faulty;
pub(crate) mod filesystem;
mod metrics;
mod names;
mod observed;
pub(crate) mod s3;
#[cfg(test)]
pub(crate) mod suite;

use std::fs::File;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use oci::{Algorithm, Digest, Hasher};

pub(crate) use error::StorageError;
pub(crate) use metrics::StoreMetrics;
pub(crate) use names::{ObjectName, UploadId, UploadNotes};
pub(crate) use observed::Observed;

pub(crate) type Result<T, E = StorageError> = std::result::Result<T, E>;

/// A blob's bytes on their way out, in pieces.
pub(crate) type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// Objects and uploads.
#[async_trait]
pub(crate) trait BlobStore: Files {
    /// A name for a new object of this digest; different at every call.
    fn new_name(&self, digest: &Digest) -> ObjectName;
    /// Stores an object that is all in memory. Durable.
    async fn put(&self, upload: UploadId, key: &ObjectName, data: Vec<Bytes>) -> Result<()>;
    /// Opens an upload for appending at its offset; what was written past it is cut off.
    async fn open_upload(&self, upload: Upload, log: Box<dyn UploadLog>) -> Result<Box<dyn UploadWriter>>;
    /// Hashes an upload's bytes up to its offset. None: they can't be read before they are an object.
    async fn hash_upload(&self, upload: &Upload, algorithm: Algorithm) -> Result<Option<Hasher>>;
    /// Drops an upload's bytes, if there are any; not an object that it became.
    async fn discard_upload(&self, upload: UploadId) -> Result<()>;
    /// The uploads that have bytes here.
    async fn list_uploads(&self) -> Result<Vec<UploadId>>;
    /// Below this a chunk of an upload is expensive, unless it is the last.
    fn chunk_bytes_min(&self) -> Option<u64>;
    /// Opens an object's bytes in `range`, which lies within it.
    async fn read(&self, key: &ObjectName, range: Range<u64>) -> Result<ByteStream>;
    /// How many bytes an object has.
    async fn size(&self, key: &ObjectName) -> Result<u64>;
    /// An object as a file of this machine, where the store keeps it as one.
    async fn file(&self, key: &ObjectName) -> Result<Option<Arc<File>>>;
    /// What the store can still take, where it has an end.
    async fn free_bytes(&self) -> Result<Option<u64>>;
    /// Fails while the store takes no more blobs because it is nearly full.
    async fn require_space(&self) -> Result<()>;
    /// A URL at which a client gets an object's bytes without this server, where that is wanted.
    async fn link(&self, key: &ObjectName) -> Result<Option<String>>;
    /// Deletes an object; one that isn't there is deleted already.
    async fn delete(&self, key: &ObjectName) -> Result<()>;
    /// A page of the names after `after`, in order; empty at the end.
    async fn list(&self, after: Option<&ObjectName>) -> Result<Vec<ObjectName>>;
    /// The identity of the store, taking over `uuid` if it has none yet.
    async fn identity(&self, uuid: &str) -> Result<String>;
}

/// Small files beside the objects, for the registry's own records. Names are paths below `meta/`.
#[async_trait]
pub(crate) trait Files: Send + Sync {
    /// Writes a file whole, replacing one of the same name. Durable.
    async fn put_file(&self, name: &str, data: Bytes) -> Result<()>;
    async fn get_file(&self, name: &str) -> Result<Option<Bytes>>;
    /// The names that begin with `prefix`, in order.
    async fn list_files(&self, prefix: &str) -> Result<Vec<String>>;
    /// Deletes a file; one that isn't there is deleted already.
    async fn delete_file(&self, name: &str) -> Result<()>;
}

/// An upload as it is recorded.
#[derive(Clone, Debug)]
pub(crate) struct Upload {
    pub(crate) id: UploadId,
    pub(crate) offset: u64,
    /// None: the store has noted nothing.
    pub(crate) notes: Option<UploadNotes>,
}

/// Where a store records what an upload consists of, before anybody could find it there.
#[async_trait]
pub(crate) trait UploadLog: Send + Sync {
    /// Records notes, and the name of the upload's object where it changes.
    async fn record(&self, key: Option<&ObjectName>, notes: UploadNotes) -> Result<()>;
}

/// An upload's bytes, open for one writer. Dropping it leaves what was settled.
#[async_trait]
pub(crate) trait UploadWriter: Send {
    async fn append(&mut self, data: Vec<Bytes>) -> Result<()>;
    /// Brings what was appended to where the next request finds it, which may be on another machine.
    async fn settle(&mut self, when: Settle) -> Result<Settled>;
    /// Makes the bytes an object: under `key`, unless the store has recorded another name. Durable.
    async fn finish(self: Box<Self>, key: &ObjectName) -> Result<ObjectName>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settle {
    /// At whatever price.
    Now,
    /// If it costs nothing.
    IfCheap,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Everything is there; what to record with it.
    Done(Option<UploadNotes>),
    /// Something is still on its way.
    NotYet,
}

/// Runs `work` where blocking is allowed. A panic in it goes on in the caller.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down and takes the caller with it.
            Err(_) => std::future::pending().await,
        },
    }
}
