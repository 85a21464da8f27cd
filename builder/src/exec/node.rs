//! What all builds of one worker share.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use runtime::network::{Bridge, BridgeConfig, Files, Prefix, Resolver};
use runtime::{NetworkHandle, Zygote};
use tokio::sync::Semaphore;

use crate::layer::Compressors;
use crate::snapshot::{ChainId, Overlay, SnapshotError, Store};

/// RUNs at once, on a machine with fewer cores than that; else one a core.
const RUN_SLOTS_MIN: usize = 2;
/// Layers unpacked at once, at most: more only fight for the disk.
const UNPACK_SLOTS_MAX: usize = 4;

/// How a node is set up.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Belongs to this worker alone.
    pub state_dir: PathBuf,
    /// Bytes of snapshots to keep; none: a share of the file system.
    pub cache_budget_bytes: Option<u64>,
    /// The program whose `zygote` subcommand clones steps; none: this one.
    pub zygote_executable: Option<PathBuf>,
    /// Networks that no step reaches, beside link-local ones and the machine's own addresses.
    pub denied_networks: Vec<Prefix>,
}

impl NodeConfig {
    pub fn new(state_dir: &Path) -> Self {
        Self {
            state_dir: state_dir.to_owned(),
            cache_budget_bytes: None,
            zygote_executable: None,
            denied_networks: Vec::new(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("could not start the threads that compress layers: {source}")]
    Compressors { source: std::io::Error },
}

/// The worker's snapshots, its zygote, its network, its threads. Made once.
pub struct Node {
    pub(super) snapshots: Arc<Store>,
    pub(super) compressors: Arc<Compressors>,
    pub(super) run_slots: Semaphore,
    pub(super) unpack_slots: Arc<Semaphore>,
    config: NodeConfig,
    /// Started by the first RUN; a failure is told to every build and tried again by the next.
    steps: Mutex<Option<Arc<Steps>>>,
    unpacking: Mutex<HashMap<ChainId, Arc<tokio::sync::Mutex<()>>>>,
    missing: OnceLock<Option<String>>,
}

/// What a RUN needs.
pub(super) struct Steps {
    pub(super) zygote: Zygote,
    pub(super) network: NetworkHandle,
    pub(super) files: Files,
}

impl Node {
    /// Takes the state directory over. Blocking: call it before the first build, not inside one.
    pub fn open(config: &NodeConfig) -> Result<Self, NodeError> {
        let store = Store::open(&config.state_dir, Box::new(Overlay), config.cache_budget_bytes)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let compressors = Compressors::start(cores).map_err(|source| NodeError::Compressors { source })?;
        Ok(Self {
            snapshots: Arc::new(store),
            compressors: Arc::new(compressors),
            run_slots: Semaphore::new(cores.max(RUN_SLOTS_MIN)),
            unpack_slots: Arc::new(Semaphore::new(cores.min(UNPACK_SLOTS_MAX))),
            config: config.clone(),
            steps: Mutex::new(None),
            unpacking: Mutex::new(HashMap::new()),
            missing: OnceLock::new(),
        })
    }

    /// The permissions that this process lacks to run steps, in words; none: all is there.
    pub(super) fn missing(&self) -> Option<&str> {
        self.missing
            .get_or_init(|| runtime::probe().err().map(|missing| missing.to_string()))
            .as_deref()
    }

    /// The zygote and the network, started if they are not running. Blocking.
    pub(super) fn steps(&self) -> Result<Arc<Steps>, runtime::RuntimeError> {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(steps) = &*steps {
            return Ok(Arc::clone(steps));
        }
        let started = Arc::new(self.start_steps()?);
        *steps = Some(Arc::clone(&started));
        Ok(started)
    }

    /// Forgets a zygote that has died; the next RUN starts another.
    pub(super) fn drop_steps(&self) {
        *self.steps.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// One unpacking at a time for chains on the same bottom layer, so that no base is unpacked twice.
    pub(super) fn unpack_lock(&self, bottom: &ChainId) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.unpacking.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(bottom.clone()).or_default())
    }

    fn start_steps(&self) -> Result<Steps, runtime::RuntimeError> {
        let zygote = match &self.config.zygote_executable {
            Some(executable) => Zygote::spawn_from(executable)?,
            None => Zygote::spawn()?,
        };
        let resolver = Resolver::of_this_machine();
        let directory = self.config.state_dir.join("etc");
        let files = Files::write(&directory, &resolver, runtime::DEFAULT_HOSTNAME).map_err(|source| {
            runtime::RuntimeError::MountSource {
                path: directory,
                source,
            }
        })?;
        let bridge = Bridge::start(&BridgeConfig {
            id: self.config.state_dir.display().to_string(),
            resolver,
            denied: self.config.denied_networks.clone(),
        })?;
        Ok(Steps {
            zygote,
            network: NetworkHandle::bridge(bridge),
            files,
        })
    }
}
