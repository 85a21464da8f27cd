//! Everything a registry knows beside the bytes: what exists, who may see it, what is on its way, what may be deleted.
//!
//! One trait an area, [`MetadataStore`] is their sum. Every method is one transaction; none is held across a store
//! call or a request's body. Rules that all implementations keep:
//!
//! - Access is a link (repository, blob); a digest known from elsewhere opens nothing.
//! - A stored object's name is in exactly one of `uploads.key`, `blobs.storage_key`, `doomed.key`, and only names in
//!   `doomed` are ever deleted.
//! - Mutations of a repository's manifests and tags exclude each other, so that a check holds until the commit.
//! - Lists are paged by key on an index.
//! - "Durable" methods return after the commit is on the disk; the others may be lost in a power cut, in order.

pub(crate) mod accounts;
pub(crate) mod collection;
mod error;
mod integrity;
mod outbox;
mod policing;
pub(crate) mod postgres;
mod rebuild;
pub(crate) mod sqlite;
#[cfg(test)]
mod suite;
mod types;
mod values;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use oci::{Digest, RepoName, Tag};

pub(crate) use accounts::Accounts;
pub(crate) use collection::{Collection, Trash};
pub(crate) use error::MetadataError;
pub(crate) use integrity::{BlobToVerify, Integrity};
pub(crate) use outbox::{Change, Delivery, Event, JournalPosition, JournaledManifest, Origin, Outbox};
pub(crate) use policing::Policing;
pub(crate) use rebuild::Rebuild;
pub(crate) use types::*;
pub(crate) use values::boot_id;

use crate::config::TagPattern;
use crate::storage::{ObjectName, UploadId, UploadNotes};

pub(crate) type Result<T, E = MetadataError> = std::result::Result<T, E>;

/// The whole of a registry's metadata.
pub(crate) trait MetadataStore:
    Uploads
    + Blobs
    + Manifests
    + Lists
    + CacheRecords
    + Upkeep
    + Leases
    + Collection
    + Trash
    + Outbox
    + Rebuild
    + Integrity
    + Policing
    + Accounts
{
    /// Other processes change it too, so that nothing it said may be relied on later.
    fn is_shared(&self) -> bool {
        false
    }
}

/// Upload sessions. Not durable, except that [`Blobs::commit_blob`] ends one.
#[async_trait]
pub(crate) trait Uploads: Send + Sync {
    /// Returns whether a live object of the closing digest is there already.
    async fn create_upload(&self, upload: NewUpload) -> Result<bool>;
    /// Makes the caller the session's only writer; no other can be for a minute unless it releases.
    async fn claim_upload(&self, claim: ClaimUpload) -> Result<ClaimOutcome>;
    /// Records how far the writer of `epoch` has come; false: it is no longer the writer.
    async fn checkpoint_upload(&self, checkpoint: Checkpoint) -> Result<bool>;
    /// Records what the blob store must remember of the session of `epoch`, and its object's name where that changes;
    /// a name that it had is doomed. False: the caller is no longer the writer.
    async fn note_upload(
        &self,
        id: UploadId,
        epoch: i64,
        key: Option<ObjectName>,
        notes: UploadNotes,
    ) -> Result<bool>;
    async fn find_upload(&self, id: UploadId, repository: &RepoName) -> Result<Option<UploadState>>;
    /// Ends a session; a name it holds is doomed. False: there is none.
    async fn cancel_upload(&self, id: UploadId, repository: &RepoName) -> Result<bool>;
}

/// Blobs and their links.
#[async_trait]
pub(crate) trait Blobs: Send + Sync {
    /// Ends an upload with the blob visible in its repository. Durable.
    async fn commit_blob(&self, commit: CommitBlob) -> Result<CommitOutcome>;
    /// Resolves a digest through a visible link. A link about to be reviewed is kept for a while longer.
    async fn find_blob(&self, repository: &RepoName, digest: &Digest) -> Result<Option<StoredBlob>>;
    /// Links a blob that is visible in `source`. Durable. False: it isn't visible there.
    async fn mount_blob(&self, target: &RepoName, source: &RepoName, digest: &Digest) -> Result<bool>;
    /// Up to `limit` repositories in which the blob is visible.
    async fn repositories_of(&self, digest: &Digest, limit: u32) -> Result<Vec<RepoName>>;
    /// Hides a blob that no live manifest of the repository refers to. Durable.
    async fn hide_blob(&self, repository: &RepoName, digest: &Digest) -> Result<DeleteOutcome>;
}

/// Manifests and tags.
#[async_trait]
pub(crate) trait Manifests: Send + Sync {
    /// Stores a manifest and sets its tags, all or nothing. Durable.
    async fn put_manifest(&self, put: PutManifest) -> Result<PutOutcome>;
    /// The digest that a tag names now.
    async fn resolve_tag(&self, repository: &RepoName, tag: &Tag) -> Result<Option<Digest>>;
    /// A manifest outside the trash.
    async fn find_manifest(&self, repository: &RepoName, digest: &Digest) -> Result<Option<StoredManifest>>;
    /// The manifest that a tag names now.
    async fn find_tagged(&self, repository: &RepoName, tag: &Tag) -> Result<Option<StoredManifest>> {
        match self.resolve_tag(repository, tag).await? {
            Some(digest) => self.find_manifest(repository, &digest).await,
            None => Ok(None),
        }
    }
    /// Moves a manifest to the trash and deletes its tags, unless one of them matches `immutable`. Durable.
    async fn delete_manifest(
        &self,
        repository: &RepoName,
        digest: &Digest,
        immutable: &[TagPattern],
        actor: &str,
    ) -> Result<DeleteOutcome>;
    /// Deletes a tag; its manifest stays until it is reviewed. Durable. False: there is no such tag.
    async fn delete_tag(&self, repository: &RepoName, tag: &Tag, actor: &str) -> Result<bool>;
}

/// Pages. Each returns at most `limit` items after the cursor, in order.
#[async_trait]
pub(crate) trait Lists: Send + Sync {
    /// Tags in byte order; `None`: the repository does not exist.
    async fn list_tags(
        &self,
        repository: &RepoName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Option<Vec<Tag>>>;
    /// Repositories that have manifests, in byte order.
    async fn list_repositories(&self, after: Option<&str>, limit: u32) -> Result<Vec<RepoName>>;
    /// Referrers of a subject by (artifact type, digest).
    async fn list_referrers(&self, query: ReferrersQuery) -> Result<Vec<Referrer>>;
}

/// The builder's step cache, kept a repository.
#[async_trait]
pub(crate) trait CacheRecords: Send + Sync {
    /// The records of those `keys` that there are, as (key, result), and marks them used.
    async fn find_cache_records(
        &self,
        repository: &RepoName,
        keys: &[String],
    ) -> Result<Vec<(String, String)>>;
    /// Stores a record that pins `blobs`, all of which must be visible in the repository; else the missing ones.
    async fn put_cache_record(
        &self,
        repository: &RepoName,
        key: &str,
        result: &str,
        blobs: &[Digest],
    ) -> Result<Vec<Digest>>;
    async fn find_memos(&self, repository: &RepoName, keys: &[String]) -> Result<Vec<(String, String)>>;
    async fn put_memo(&self, repository: &RepoName, key: &str, value: &str) -> Result<()>;
}

/// Cleaning up.
#[async_trait]
pub(crate) trait Upkeep: Send + Sync {
    /// Ends sessions whose time is over, dooming their names; returns their ids, at most `limit`.
    async fn expire_uploads(&self, limit: u32) -> Result<Vec<UploadId>>;
    /// Claims names that are due for deletion for a few minutes. Durable: from here on their bytes may go.
    async fn claim_doomed(&self, limit: u32) -> Result<Vec<Doomed>>;
    /// Forgets a name whose bytes are gone.
    async fn forget_doomed(&self, keys: &[ObjectName]) -> Result<()>;
    /// Dooms those of `keys` that no table knows; returns how many.
    async fn doom_orphans(&self, keys: &[ObjectName]) -> Result<u64>;
    /// Those of `ids` that have no session.
    async fn without_session(&self, ids: &[UploadId]) -> Result<Vec<UploadId>>;
    /// What the last run left: identity, and whether the machine went down under it.
    async fn opened(&self) -> Result<Opened>;
    /// Whether the database answers.
    async fn ping(&self) -> Result<()>;
    /// Returns when the store can't go on: a commit failed so that only recovery at the next start can tell its outcome.
    async fn broken(&self);
    /// Marks an orderly end and closes. Durable.
    async fn close(&self) -> Result<()>;
}

/// What one process among several may do at a time, by the database's clock. Not durable.
#[async_trait]
pub(crate) trait Leases: Send + Sync {
    /// Takes a lease for `life` from now, or makes the holder's own last that long. Its epoch counts the holders. None:
    /// somebody else has it.
    async fn hold_lease(&self, name: &str, holder: &str, life: Duration) -> Result<Option<i64>>;
    /// Ends a lease that `holder` has.
    async fn release_lease(&self, name: &str, holder: &str) -> Result<()>;
}

/// The bytes of a manifest with what its answer needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredManifest {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) bytes: Bytes,
}
