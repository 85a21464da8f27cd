//! Errors of the snapshot store.

use std::io;
use std::path::{Path, PathBuf};

use oci::Digest;

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("could not {action} {}: {source}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("another worker uses the state directory {}", path.display())]
    InUse { path: PathBuf },
    #[error("could not mount an overlay of {layers} layers: {step}: {source}")]
    Mount {
        layers: usize,
        step: &'static str,
        source: io::Error,
    },
    #[error("the image has {layers} layers; at most {limit} can be mounted")]
    TooManyLayers { layers: usize, limit: usize },
    #[error("could not serialise a snapshot's description: {source}")]
    Serialise { source: serde_json::Error },
    #[error("layer {layer}: {reason}")]
    MalformedLayer { layer: String, reason: String },
    #[error("layer {layer}: entry {entry:?}: {source}")]
    Apply {
        layer: String,
        entry: String,
        source: io::Error,
    },
    #[error("layer {layer} has the digest {actual}")]
    DigestMismatch { layer: Box<Digest>, actual: Box<Digest> },
    #[error("layer {layer} unpacks to the diff id {actual}, but its image says {expected}")]
    DiffIdMismatch {
        layer: String,
        expected: Box<Digest>,
        actual: Box<Digest>,
    },
    #[error("layer {layer}: could not read it: {source}")]
    ReadLayer { layer: String, source: io::Error },
    #[error("a thread of the snapshot store ended unexpectedly")]
    ThreadDied,
}

/// Says what was tried on which path.
pub trait IoContext<T> {
    fn on(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, SnapshotError>;
}

impl<T, E: Into<io::Error>> IoContext<T> for Result<T, E> {
    fn on(self, action: &'static str, path: impl AsRef<Path>) -> Result<T, SnapshotError> {
        self.map_err(|error| SnapshotError::Io {
            action,
            path: path.as_ref().to_owned(),
            source: error.into(),
        })
    }
}
