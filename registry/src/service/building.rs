//! The three services behind `/api/v1`: builds, their contexts, and images of other registries.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::builds::{BuildError, BuildLimits, Builds, BuildsSetup};
use super::contexts::{CONTEXT_BYTES_MAX, Contexts};
use super::upstream::{OwnNames, Upstream};
use super::{Registry, Tokens};
use crate::config::Config;

pub(crate) struct Building {
    pub(crate) builds: Arc<Builds>,
    pub(crate) contexts: Arc<Contexts>,
    pub(crate) upstream: Upstream,
}

impl Building {
    /// Takes up what the last run left. The worker starts with the first build.
    pub(crate) async fn open(
        config: &Config,
        registry: &Arc<Registry>,
        tokens: &Arc<Tokens>,
        socket: &Path,
    ) -> Result<Self, BuildError> {
        let store = Some(Arc::clone(&registry.store));
        let contexts = Contexts::open(&config.data_dir, CONTEXT_BYTES_MAX, store).await?;
        let setup = BuildsSetup {
            data_dir: config.data_dir.clone(),
            socket: socket.to_owned(),
            worker: config.worker.clone(),
            limits: BuildLimits::default(),
            contexts: Arc::clone(&contexts),
            tokens: Arc::clone(tokens),
        };
        let builds = Builds::open(setup).await?;
        let names = OwnNames::new(config.listen.clone(), &config.public_hosts);
        Ok(Self {
            builds,
            contexts,
            upstream: Upstream::new(Arc::clone(registry), names),
        })
    }

    /// Tells the addresses that the server really has, now that it listens.
    pub(crate) fn listening(&self, addresses: &[SocketAddr]) {
        self.upstream.listening(addresses);
    }
}
