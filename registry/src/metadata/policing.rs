//! What policies need to know and do.

use async_trait::async_trait;
use oci::RepoName;

use super::Result;
use super::collection::TagAge;

#[async_trait]
pub(crate) trait Policing: Send + Sync {
    /// The bytes of all that a repository has, the trash included, in full where others have it too.
    async fn usage_bytes(&self, repository: &RepoName) -> Result<u64>;
    /// The part of them that only manifests in the trash need.
    async fn trash_bytes(&self, repository: &RepoName) -> Result<u64>;
    /// Tags in byte order with their ages.
    async fn list_tag_ages(
        &self,
        repository: &RepoName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<TagAge>>;
    /// Deletes a tag that is still as old as it was. Not durable: else it is deleted again.
    async fn expire_tag(&self, repository: &RepoName, tag: &TagAge, actor: &str) -> Result<bool>;
}
