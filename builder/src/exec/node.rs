//! What all builds of one worker share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::snapshot::{Overlay, SnapshotError, Store};

/// How a node is set up.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Belongs to this worker alone.
    pub state_dir: PathBuf,
    /// Bytes of snapshots to keep; none: a share of the file system.
    pub cache_budget_bytes: Option<u64>,
}

impl NodeConfig {
    pub fn new(state_dir: &Path) -> Self {
        Self {
            state_dir: state_dir.to_owned(),
            cache_budget_bytes: None,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Runtime(#[from] runtime::RuntimeError),
}

/// The worker's snapshots, its zygote, its network, its threads. Made once.
pub struct Node {
    #[expect(dead_code, reason = "used as soon as steps run")]
    pub(super) snapshots: Arc<Store>,
}

impl Node {
    /// Takes the state directory over. Blocking: call it before the first build, not inside one.
    pub fn open(config: &NodeConfig) -> Result<Self, NodeError> {
        let store = Store::open(&config.state_dir, Box::new(Overlay), config.cache_budget_bytes)?;
        Ok(Self {
            snapshots: Arc::new(store),
        })
    }
}
