//! COPY and ADD: which files, what they hash to, and how they get into a tree.
//!
//! The three read the same list of sources, so a key never covers other files than those that are copied. Sources are
//! resolved in their own root; no link in a context or an image leads out of it.

mod apply;
mod archive;
mod content;
mod digest;
mod mode;
mod sources;

use std::io;
use std::path::PathBuf;

use crate::layer::ChainTimes;
use crate::plan::Copy;
use crate::snapshot::{Root, SnapshotError};

pub(super) use apply::{Owner, apply};
pub(super) use digest::digest;

/// Where files are copied from, and what their metadata means.
pub(super) struct Origin {
    pub(super) root: Root,
    /// A context's owners and times are the user's machine's: they are not copied.
    pub(super) is_context: bool,
    pub(super) times: ChainTimes,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum CopyError {
    #[error("{pattern:?} is not in {place}")]
    NotFound { pattern: String, place: &'static str },
    #[error("the pattern {pattern:?}: {reason}")]
    Pattern { pattern: String, reason: String },
    #[error("can't copy a directory over the file /{}", path.display())]
    OntoFile { path: PathBuf },
    #[error("can't copy a file over the directory /{}", path.display())]
    OntoDirectory { path: PathBuf },
    #[error("{name} is a {format} archive, which ADD can't unpack yet: unpack it first, or use COPY")]
    Compression { name: String, format: &'static str },
    #[error("the archive {name}: {source}")]
    Archive { name: String, source: io::Error },
    #[error("could not {action} /{}: {source}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

impl CopyError {
    /// Whether the Dockerfile or the context is at fault, not the machine.
    pub(super) fn is_users(&self) -> bool {
        !matches!(self, Self::Io { .. } | Self::Snapshot(_))
    }
}

/// Says what was tried on which path.
trait CopyContext<T> {
    fn copying(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, CopyError>;
}

impl<T, E: Into<io::Error>> CopyContext<T> for Result<T, E> {
    fn copying(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T, CopyError> {
        self.map_err(|error| CopyError::Io {
            action,
            path: path.into(),
            source: error.into(),
        })
    }
}

/// Names a set of files in a tree, for memos of its digest.
pub(super) fn selector(copy: &Copy) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("layeryard copy selector v1");
    for source in &copy.sources {
        hasher.update(&(source.len() as u64).to_le_bytes());
        hasher.update(source.as_bytes());
    }
    format!("copy:{}", hasher.finalize().to_hex())
}
