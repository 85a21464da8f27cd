//! Failures of the blob store.

use std::io;

use super::{ObjectName, UploadId};

#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    #[error("object {key}, {operation}")]
    Object {
        key: ObjectName,
        operation: &'static str,
        source: io::Error,
    },
    #[error("upload {upload}, {operation}")]
    Upload {
        upload: UploadId,
        operation: &'static str,
        source: io::Error,
    },
    #[error("blob store at {path}, {operation}")]
    Store {
        path: String,
        operation: &'static str,
        source: io::Error,
    },
    #[error("object {key} ends {missing} bytes early")]
    Truncated { key: ObjectName, missing: u64 },
}

impl StorageError {
    /// Whether there is no such object, as opposed to a store that does not answer.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Object { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the disk is full.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Object { source, .. } | Self::Upload { source, .. } | Self::Store { source, .. } => {
                matches!(
                    source.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                )
            }
            Self::Truncated { .. } => false,
        }
    }
}
