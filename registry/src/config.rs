//! What a server is told when it starts. Values are ready to use: reading files and flags is the caller's matter.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How a server runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// TCP addresses; port 0 takes a free one. The unix socket in the data directory is always served as well.
    pub listen: Vec<SocketAddr>,
    /// Everything the server keeps lies under it.
    pub data_dir: PathBuf,
    pub access: AccessConfig,
    pub limits: Limits,
    /// How to start the build worker; none: builds are refused.
    pub worker: Option<WorkerCommand>,
    /// Host names (`registry.example.com`, `127.0.0.1:5000`) by which image names mean this server, beside the
    /// listeners' own addresses.
    pub public_hosts: Vec<String>,
    /// Accept manifests and indexes whose references are not all here (the specification's sparse ones). What comes
    /// later is held from the next push of the manifest on.
    pub sparse_indexes: bool,
}

/// Who may do what.
#[derive(Clone, Debug, Default)]
pub struct AccessConfig {
    /// What a caller without credentials may do. `None` is no decision: everything, on loopback listeners only.
    pub anonymous: Option<Anonymous>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anonymous {
    ReadOnly,
    ReadWrite,
}

/// The program that builds, started by the server when the first build comes.
#[derive(Clone, Debug)]
pub struct WorkerCommand {
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub env: BTreeMap<OsString, OsString>,
}

/// Every limit of the server.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest manifest that is accepted.
    pub manifest_size_bytes_max: u64,
    /// An upload session without any request for this long is dropped.
    pub upload_idle_max: Duration,
    /// An upload session older than this is dropped, whatever it does.
    pub upload_age_max: Duration,
    /// How long deleted tags and manifests can be restored.
    pub undelete_window: Duration,
    /// How long a fresh blob is safe from collection while its manifest is on the way.
    pub review_delay: Duration,
    /// How long after its row is gone an object's bytes are deleted: longer than any running download.
    pub delete_delay: Duration,
    /// How long a stopping server waits for running transfers.
    pub shutdown_grace: Duration,
    /// How long a client may take to send a request's head, and keep a connection without a request.
    pub header_read_max: Duration,
    /// Connections served at once; more wait to be accepted.
    pub connections_max: usize,
}

impl Config {
    /// Zero configuration but for the data directory: both loopbacks, port 5000.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            listen: vec![
                SocketAddr::from(([127, 0, 0, 1], 5000)),
                SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 5000)),
            ],
            data_dir: data_dir.into(),
            access: AccessConfig::default(),
            limits: Limits::default(),
            worker: None,
            public_hosts: Vec::new(),
            sparse_indexes: false,
        }
    }
}

const HOUR: Duration = Duration::from_secs(3600);

impl Default for Limits {
    fn default() -> Self {
        Self {
            // The specification asks for 4 MiB at least; the conformance suite's largest has 3.9 MB.
            manifest_size_bytes_max: 4 * 1024 * 1024,
            upload_idle_max: 24 * HOUR,
            upload_age_max: 7 * 24 * HOUR,
            undelete_window: 7 * 24 * HOUR,
            review_delay: 24 * HOUR,
            delete_delay: HOUR,
            shutdown_grace: Duration::from_secs(30),
            header_read_max: Duration::from_secs(75),
            connections_max: 16_384,
        }
    }
}
