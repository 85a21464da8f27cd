//! Networks of steps: none, or one address each on a bridge of the worker.
//!
//! A [`Bridge`] is made once by a worker. From then on a thread of it keeps one network namespace ready: with
//! a veth whose other end is an isolated port of the bridge, an address and a default route. A step that
//! starts takes it, so it needn't wait for its making.
//!
//! What a step reaches: the world, by NAT, and port 53 of the machine's name servers. What it doesn't: any other
//! port of any address of the machine (so not this server), other steps, link-local addresses (metadata
//! services), and whatever the caller denies.

mod bridge;
mod claim;
mod files;
mod forward;
pub(crate) mod link;
pub(crate) mod netlink;
pub(crate) mod nft;
mod pool;
mod subnet;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

pub use bridge::{Bridge, BridgeConfig};
pub(crate) use bridge::{may_forward, try_bridge};
pub use files::{Files, Resolver};
pub use link::Prefix;

use crate::RuntimeError;

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("could not {operation} for the network of steps")]
    Operation {
        operation: &'static str,
        source: io::Error,
    },
    #[error("every private IPv4 network is in use on this machine")]
    NoFreeSubnet,
    #[error("all addresses of the steps' network are taken")]
    NoFreeAddress,
    #[error("another worker that runs on this machine has the same identity")]
    Claimed,
    #[error("the thread that makes network namespaces is gone")]
    ThreadGone,
}

/// Names the operation of an error.
trait During<T> {
    fn during(self, operation: &'static str) -> Result<T, NetworkError>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, operation: &'static str) -> Result<T, NetworkError> {
        self.map_err(|source| NetworkError::Operation {
            operation,
            source: source.into(),
        })
    }
}

/// Where steps get their networks from.
#[derive(Clone, Debug, Default)]
pub struct NetworkHandle {
    bridge: Option<Arc<Bridge>>,
}

impl NetworkHandle {
    /// For steps without a network.
    pub fn none() -> Self {
        Self::default()
    }

    pub fn bridge(bridge: Arc<Bridge>) -> Self {
        Self { bridge: Some(bridge) }
    }

    pub(crate) fn lease(&self) -> Result<Lease, RuntimeError> {
        let bridge = self.bridge.as_ref().ok_or(RuntimeError::NoBridge)?;
        let place = bridge.take()?;
        Ok(Lease {
            namespace: Some(place.namespace),
            _address: place.address,
            _bridge: bridge.clone(),
        })
    }
}

/// A step's address, and its namespace until the step is in it.
#[derive(Debug)]
pub(crate) struct Lease {
    namespace: Option<OwnedFd>,
    _address: pool::Address,
    /// The bridge stays while a step is on it.
    _bridge: Arc<Bridge>,
}

impl Lease {
    pub(crate) fn namespace(&self) -> Option<BorrowedFd<'_>> {
        self.namespace.as_ref().map(AsFd::as_fd)
    }

    /// Leaves the namespace to the step: it goes when the step's last process does.
    pub(crate) fn entered(&mut self) {
        self.namespace = None;
    }
}
