//! Why the build API refuses.

use std::path::PathBuf;

use oci::RepoName;

use crate::storage::StorageError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    #[error("build {0} is not known: finished builds are kept for some days only")]
    Unknown(String),
    #[error(
        "build context {0} is not known: contexts are kept for an hour and end with their build: send it again"
    )]
    ContextUnknown(String),
    #[error("the build context exceeds {limit_bytes} bytes: exclude files with .dockerignore")]
    ContextTooLarge { limit_bytes: u64 },
    #[error("the build context broke off after {received_bytes} bytes")]
    ContextBroken {
        received_bytes: u64,
        #[source]
        source: crate::service::BodyError,
    },
    #[error("{0}")]
    Invalid(String),
    #[error(
        "this server has no build worker: it was started without one; start it with `layeryard serve`, or build on another server"
    )]
    NoWorker,
    #[error("{waiting} builds wait already: try again later")]
    Busy { waiting: usize },
    #[error("the server is stopping")]
    Stopping,
    #[error(
        "{actor} may not build here: building needs the right to push to {}",
        list(repositories)
    )]
    Denied {
        actor: String,
        repositories: Vec<RepoName>,
    },
    #[error("this token is not the one of build {0}")]
    WrongToken(String),
    #[error("events of build {build} go on at {expected}, but the batch begins at {first}")]
    Gap {
        build: String,
        expected: u64,
        first: u64,
    },
    #[error(transparent)]
    NoRoom(#[from] StorageError),
    #[error("cannot use {}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
}

fn list(repositories: &[RepoName]) -> String {
    if repositories.is_empty() {
        return "some repository".to_owned();
    }
    repositories
        .iter()
        .map(RepoName::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}
