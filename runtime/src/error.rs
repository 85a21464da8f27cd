//! Errors of the worker's side. What goes wrong inside a step's set-up is an [`crate::Exit::Setup`] instead.

use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("could not make a sealed copy of {}", path.display())]
    SealExecutable { path: PathBuf, source: io::Error },
    #[error("could not start the zygote process")]
    SpawnZygote { source: io::Error },
    #[error("the zygote could not set itself up: {message}")]
    ZygoteSetup { message: String },
    #[error("the zygote process is gone")]
    ZygoteGone,
    #[error("could not talk to the zygote process")]
    ZygoteSocket { source: io::Error },
    #[error("the zygote could not clone a process: {message}")]
    Clone { message: String },
    #[error("the specification can't be sent")]
    EncodeSpec { source: serde_json::Error },
    #[error("a step needs a network on the bridge, but this worker has none")]
    NoBridge,
    #[error("could not open {} to mount it into a step", path.display())]
    MountSource { path: PathBuf, source: io::Error },
    #[error("could not use the control group {}", path.display())]
    Cgroup { path: PathBuf, source: io::Error },
    #[error(
        "a limit on {limit} is asked for, but no cgroup hierarchy of this machine has that controller for us"
    )]
    CgroupLimit { limit: &'static str },
    #[error(transparent)]
    Network(#[from] crate::network::NetworkError),
}
