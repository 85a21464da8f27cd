//! Why a registry refuses. How each is answered is decided in `http/error.rs`.

use oci::{Digest, ManifestError, Reference, RepoName, Tag};

use super::Action;
use crate::metadata::MetadataError;
use crate::storage::{StorageError, UploadId};

pub(crate) type Result<T, E = RegistryError> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryError {
    #[error("{actor} may not do this in repository {repository}")]
    Denied { actor: String, repository: RepoName },
    #[error("the token's scope does not allow {action} in repository {repository}")]
    ScopeTooSmall { action: Action, repository: RepoName },
    #[error("{actor} may not do this: it takes the rights of an administrator")]
    NotAdmin { actor: String },
    #[error("repository {0} is not known")]
    NameUnknown(RepoName),
    #[error("blob {digest} is not in repository {repository}")]
    BlobUnknown { repository: RepoName, digest: Digest },
    #[error("blob {digest} is needed by manifest {manifest} of this repository: delete that first")]
    BlobInUse { digest: Digest, manifest: Digest },
    #[error("upload {0} is not known in this repository: it was closed, cancelled or has expired")]
    UploadUnknown(UploadId),
    #[error("upload {0} is being written by another request")]
    UploadBusy(UploadId),
    #[error("upload {upload} stands at {offset} bytes: continue there")]
    UploadOffset { upload: UploadId, offset: u64 },
    #[error("request says it carries {expected} bytes but carries {actual}")]
    BodyLength { expected: u64, actual: u64 },
    #[error("request body broke off after {received} bytes")]
    BodyBroken {
        received: u64,
        #[source]
        source: BodyError,
    },
    #[error("blob has more than {limit} bytes, the most that this server takes (limits.blob_size_max)")]
    BlobTooLarge { limit: u64 },
    #[error("content has digest {actual}, not {expected}")]
    DigestMismatch { expected: Digest, actual: Digest },
    #[error("manifest {reference} is not in repository {repository}")]
    ManifestUnknown {
        repository: RepoName,
        reference: Reference,
    },
    #[error(transparent)]
    ManifestInvalid(#[from] ManifestError),
    #[error("manifest has more than {limit} bytes")]
    ManifestTooLarge { limit: u64 },
    #[error("manifest refers to content that repository {repository} does not have")]
    ManifestIncomplete {
        repository: RepoName,
        blobs: Vec<Digest>,
        manifests: Vec<Digest>,
    },
    #[error("manifest {digest} is listed by index {index}: delete that first")]
    ManifestInUse { digest: Digest, index: Digest },
    #[error(
        "{what} of repository {repository} can't be restored: it was not deleted, or is purged for good; \
         `layeryard trash {repository}` lists what can be"
    )]
    NotInTrash { repository: RepoName, what: String },
    #[error("tag {tag} of repository {repository} names {digest} now: restoring it needs force")]
    TagTaken {
        repository: RepoName,
        tag: Tag,
        digest: Digest,
    },
    #[error("{reason} (policy {rule})")]
    Policy { rule: String, reason: String },
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error(transparent)]
    Storage(StorageError),
    #[error("the metadata journal cannot be read or written")]
    Journal(#[source] std::io::Error),
    #[error("the task that did the work failed")]
    Task(#[from] tokio::task::JoinError),
}

impl From<StorageError> for RegistryError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::NotWriter(upload) => Self::UploadUnknown(upload),
            error => Self::Storage(error),
        }
    }
}

/// The caller's side of a body failed.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;
