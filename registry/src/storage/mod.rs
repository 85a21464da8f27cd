//! Where the bytes of blobs lie.
//!
//! An object is written once under a unique name and never changed; the name is never used again. Which digest an
//! object has, and whether it may be deleted, only the metadata store knows.

mod error;
pub(crate) mod filesystem;
mod names;
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
pub(crate) use names::{ObjectName, UploadId};

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
    /// Opens an upload's bytes for appending at `offset`; what was written past it is cut off.
    async fn open_upload(&self, upload: UploadId, offset: u64) -> Result<Box<dyn UploadWriter>>;
    /// Hashes an upload's first `length` bytes.
    async fn hash_upload(&self, upload: UploadId, length: u64, algorithm: Algorithm) -> Result<Hasher>;
    /// Drops an upload's bytes, if there are any.
    async fn discard_upload(&self, upload: UploadId) -> Result<()>;
    /// The uploads that have bytes here.
    async fn list_uploads(&self) -> Result<Vec<UploadId>>;
    /// Opens an object's bytes in `range`, which lies within it.
    async fn read(&self, key: &ObjectName, range: Range<u64>) -> Result<ByteStream>;
    /// How many bytes an object has.
    async fn size(&self, key: &ObjectName) -> Result<u64>;
    /// An object as a file of this machine, where the store keeps it as one.
    async fn file(&self, key: &ObjectName) -> Result<Option<Arc<File>>>;
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

/// An upload's bytes, open for one writer. Dropping it leaves what was written.
#[async_trait]
pub(crate) trait UploadWriter: Send {
    async fn append(&mut self, data: Vec<Bytes>) -> Result<()>;
    /// Makes the bytes an object. Durable.
    async fn finish(self: Box<Self>, key: &ObjectName) -> Result<()>;
}
