//! Errors of making a layer.

use std::io;
use std::path::PathBuf;

use crate::services::ServiceError;
use crate::snapshot::SnapshotError;

#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error("could not {action} /{}: {source}", path.display())]
    Read {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("/{} can't be in an image: {reason}", path.display())]
    Unrepresentable { path: PathBuf, reason: &'static str },
    #[error("/{} changed while it was read", path.display())]
    Changed { path: PathBuf },
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("could not upload it: {source}")]
    Upload { source: ServiceError },
    #[error("could not compress it: {source}")]
    Compress { source: io::Error },
    /// A producer outside this crate could not read what it makes the layer of.
    #[error("{source}")]
    Input {
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the layer's receiver is gone")]
    Abandoned,
    #[error("a thread that made the layer ended unexpectedly")]
    ThreadDied,
}
