//! Failures of the blob store.

use std::error::Error;
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
    #[error("upload {upload}, recording what it consists of")]
    Unrecorded {
        upload: UploadId,
        source: Box<dyn Error + Send + Sync>,
    },
    #[error(
        "the server's disk is nearly full: {free} bytes are free, and {reserve} are kept for its own work"
    )]
    Reserved { free: u64, reserve: u64 },
    #[error("upload {0} has ended or has another writer")]
    NotWriter(UploadId),
}

impl StorageError {
    /// Whether there is no such object, as opposed to a store that does not answer.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Object { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether the disk is full, or as full as it may be.
    pub(crate) fn is_full(&self) -> bool {
        use io::ErrorKind as K;
        matches!(self, Self::Reserved { .. })
            || matches!(self.kind(), Some(K::StorageFull | K::QuotaExceeded))
    }

    /// Whether the store may answer again in a moment.
    pub(crate) fn is_unavailable(&self) -> bool {
        use io::ErrorKind as K;
        matches!(
            self.kind(),
            Some(K::TimedOut | K::ConnectionRefused | K::ConnectionReset | K::ResourceBusy)
        )
    }

    fn kind(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Object { source, .. } | Self::Upload { source, .. } | Self::Store { source, .. } => {
                Some(source.kind())
            }
            Self::Truncated { .. } | Self::Unrecorded { .. } | Self::Reserved { .. } | Self::NotWriter(_) => {
                None
            }
        }
    }
}
