//! Making a database anew from what the blob store holds.

use async_trait::async_trait;
use oci::{Digest, RepoName};

use super::{JournalPosition, Result};
use crate::storage::ObjectName;

/// Steps of a rebuild. Nobody else uses the database meanwhile, and one that was not finished is thrown away.
#[async_trait]
pub(crate) trait Rebuild: Send + Sync {
    /// Takes over the blob store's identity.
    async fn adopt_store(&self, uuid: &str) -> Result<()>;
    /// Adds objects that no table knows yet; a second one of the same digest is doomed.
    async fn add_blobs(&self, blobs: Vec<(Digest, u64, ObjectName)>) -> Result<()>;
    /// Those of `keys` that no table knows.
    async fn unknown_objects(&self, keys: &[ObjectName]) -> Result<Vec<ObjectName>>;
    /// Makes those of `blobs` that there are visible in a repository.
    async fn link_blobs(&self, repository: &RepoName, blobs: &[Digest]) -> Result<()>;
    /// Dooms what nothing refers to, and goes on from where the journal stands. Durable. How many blobs there are.
    async fn finish_rebuild(&self, position: JournalPosition) -> Result<u64>;
}
