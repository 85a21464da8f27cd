//! Blobs: reading, mounting, deleting.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use oci::{Digest, RepoName};

use super::{Action, Principal, Registry, RegistryError, Result};
use crate::metadata::{DeleteOutcome, StoredBlob};
use crate::storage::ByteStream;
use crate::traces::{self, Traced as _};

/// Repositories that are looked at to mount a blob whose source isn't named.
const ANONYMOUS_MOUNT_SOURCES: u32 = 64;

/// A blob's bytes, ready to be sent.
pub(crate) struct OpenBlob {
    pub(crate) range: Range<u64>,
    pub(crate) bytes: ByteStream,
}

impl Registry {
    /// Finds a blob that is visible in the repository.
    pub(crate) async fn blob(&self, repository: &RepoName, digest: &Digest) -> Result<Arc<StoredBlob>> {
        let slot = match self.caches.blobs.get(repository, digest) {
            Ok(blob) => return Ok(blob),
            Err(slot) => slot,
        };
        let finding = self.metadata.find_blob(repository, digest);
        let found = finding.within(self.query("find_blob")).await?;
        let blob = Arc::new(found.ok_or_else(|| RegistryError::BlobUnknown {
            repository: repository.clone(),
            digest: *digest,
        })?);
        self.caches.blobs.put(slot, Arc::clone(&blob));
        Ok(blob)
    }

    /// Opens the bytes of a blob in `range`, which lies within it.
    pub(crate) async fn open_blob(&self, blob: &StoredBlob, range: Range<u64>) -> Result<OpenBlob> {
        let bytes = self.store.read(&blob.key, range.clone()).await?;
        Ok(OpenBlob { range, bytes })
    }

    /// The whole blob as a file of this machine, where it is one.
    pub(crate) async fn blob_file(&self, blob: &StoredBlob) -> Result<Option<Arc<File>>> {
        Ok(self.store.file(&blob.key).await?)
    }

    /// Where a client gets the whole blob without this server, if it is sent away for it.
    pub(crate) async fn blob_link(&self, blob: &StoredBlob) -> Result<Option<String>> {
        Ok(self.store.link(&blob.key).await?)
    }

    /// Makes a blob of another repository visible in `target`. Without a source any will do that the caller may
    /// pull from. False: it has to be uploaded.
    pub(crate) async fn mount(
        self: &Arc<Self>,
        caller: &Principal,
        target: &RepoName,
        source: Option<&RepoName>,
        digest: &Digest,
    ) -> Result<bool> {
        self.require_writable(target)?;
        let sources = match source {
            Some(source) => vec![source.clone()],
            None => {
                let finding = self.metadata.repositories_of(digest, ANONYMOUS_MOUNT_SOURCES);
                finding.within(self.query("repositories_of")).await?
            }
        };
        let Some(source) = sources
            .into_iter()
            .find(|source| caller.may(Action::Pull, source))
        else {
            return Ok(false);
        };
        let room = if self.has_quota(target) {
            match self.blob(&source, digest).await {
                Ok(blob) => self.room_for(target, digest, blob.size).await?,
                Err(_) => return Ok(false),
            }
        } else {
            None
        };
        let (registry, target, digest) = (Arc::clone(self), target.clone(), *digest);
        traces::spawn(async move {
            let _room = room;
            let mounting = registry.metadata.mount_blob(&target, &source, &digest);
            Ok(mounting.within(registry.query("mount_blob")).await?)
        })
        .await?
    }

    pub(crate) async fn delete_blob(self: &Arc<Self>, repository: &RepoName, digest: &Digest) -> Result<()> {
        self.require_writable(repository)?;
        let (registry, repository, digest) = (Arc::clone(self), repository.clone(), *digest);
        traces::spawn(async move {
            let hiding = registry.metadata.hide_blob(&repository, &digest);
            let outcome = hiding.within(registry.query("hide_blob")).await?;
            registry.caches.blobs.changed(&repository, digest);
            match outcome {
                DeleteOutcome::Deleted => Ok(()),
                DeleteOutcome::Tagged(_) | DeleteOutcome::Unknown => {
                    Err(RegistryError::BlobUnknown { repository, digest })
                }
                DeleteOutcome::ReferencedBy(manifest) => Err(RegistryError::BlobInUse { digest, manifest }),
            }
        })
        .await?
    }
}
