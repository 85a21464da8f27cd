//! Starting, serving and stopping.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::config::{Config, ConfigError, Limits, StorageBackend};
use crate::http::{App, AppState, Inner, Metrics, Site, UploadSlots};
use crate::listen::{self, Connections, Socket};
use crate::lock::{DataDirLock, LockError};
use crate::metadata::postgres::Postgres;
use crate::metadata::sqlite::Sqlite;
use crate::metadata::{MetadataError, MetadataStore, boot_id};
use crate::report::chain;
use crate::service::access::Gate;
use crate::service::journal::JournalAhead;
use crate::service::policies::Policies;
use crate::service::{Building, Jobs, Registry, RegistryError, Tokens, Webhooks};
use crate::storage::filesystem::Filesystem;
use crate::storage::s3::S3;
use crate::storage::{BlobStore, Observed, StorageError, StoreMetrics};
use crate::tls::{Tls, TlsError};

/// How often accounts, keys and certificates are looked at for changes.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// A running registry.
pub struct Server {
    state: AppState,
    connections: Connections,
    addresses: Vec<SocketAddr>,
    socket: Socket,
    run_dir: PathBuf,
    jobs: Arc<Jobs>,
    tls: bool,
    reload: Arc<Notify>,
    keeper: JoinHandle<()>,
    _lock: DataDirLock,
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot serve the socket {path}")]
    Socket { path: PathBuf, source: io::Error },
    #[error("cannot use data directory {path}")]
    DataDir { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("cannot open the database")]
    Metadata(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the database failed while committing: what is on the disk shows at the next start")]
    DatabaseBroken,
    #[error("cannot open the build service")]
    Builds(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot decide about access")]
    Access(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("cannot open the blob store")]
    Storage(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("this PostgreSQL database is in use: make an empty one and name it in [database] url")]
    NotEmpty,
    #[error("cannot prepare webhooks")]
    Webhooks(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot read the metadata journal in the blob store")]
    Journal(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(
        "the database in {path} belongs to another blob store: {database} there, {store} here; bring the right one back, \
         or make it anew with `layeryard rebuild-metadata --anew`"
    )]
    ForeignStore {
        path: PathBuf,
        database: String,
        store: String,
    },
}

impl Server {
    /// Opens the data directory, recovers what a crash left, and listens.
    pub async fn start(config: Config) -> Result<Self, ServeError> {
        // The future of all that is opened is too large for a caller's stack.
        Box::pin(Self::start_all(config)).await
    }

    async fn start_all(config: Config) -> Result<Self, ServeError> {
        config.validate()?;
        let run_dir = config.data_dir.join("run");
        prepare(&config.data_dir, &run_dir).map_err(|source| ServeError::DataDir {
            path: config.data_dir.clone(),
            source,
        })?;
        let lock = DataDirLock::take(&config.data_dir)?;
        remove_addresses(&run_dir);
        let Opened {
            registry,
            store,
            reconcile,
            ahead,
        } = open(&config).await?;
        let socket = Socket::bind(&run_dir)?;

        let jobs = Arc::new(Jobs::new(Arc::clone(&registry.metadata)));
        let tokens = Arc::new(Tokens::new());
        let building = Building::open(&config, &registry, &tokens, socket.path())
            .await
            .map_err(|error| ServeError::Builds(Box::new(error)))?;
        let gate = Gate::open(&config, Arc::clone(&registry.metadata), tokens)
            .await
            .map_err(|error| ServeError::Access(Box::new(error)))?;
        let tls = config.tls.clone().map(Tls::open).transpose()?.map(Arc::new);
        let metrics = Metrics::new(&jobs.metrics(), &registry.collection, &store);
        let state = AppState::new(Inner {
            registry: Arc::clone(&registry),
            gate: Arc::clone(&gate),
            building,
            site: Site::of(&config),
            uploads: UploadSlots::new(&config.limits, metrics.uploads_refused.clone()),
            notices: OnceLock::new(),
            metrics,
            draining: AtomicBool::new(false),
            read_only: ahead.map(|ahead| ahead.to_string()),
        });
        let app = Arc::new(App::new(state.clone()));
        let mut connections = Connections::new(app, &config.limits);
        let addresses = connections.listen(&config.listen, tls.as_ref()).await?;
        state.building.listening(&addresses);
        connections.listen_on_socket(&socket);
        // Before anybody is told where the server is.
        let webhooks = webhooks(&config, &registry, &addresses)?;
        let dropped = state.metrics.notices_dropped.clone();
        if let Some(notices) = webhooks.as_ref().and_then(|webhooks| webhooks.notices(dropped)) {
            state.notices.get_or_init(|| notices);
        }
        listen::write_local_token(&run_dir, gate.local_token())
            .and_then(|()| listen::write_addresses(&run_dir, &addresses, tls.is_some()))
            .map_err(|source| ServeError::DataDir {
                path: run_dir.clone(),
                source,
            })?;
        let reload = Arc::new(Notify::new());
        let keeper = tokio::spawn(keep(gate, tls.clone(), Arc::clone(&reload)));

        match ahead {
            // A database that is not the right one must not decide what is deleted.
            Some(ahead) => tracing::error!(reason = %ahead, "read-only"),
            None => {
                registry.keep_clean(&jobs);
                registry.keep_collecting(&jobs);
                registry.keep_retaining(&jobs);
                registry.keep_journal(&jobs);
                registry.keep_verifying(&jobs, &config.verify);
                if let Some(webhooks) = webhooks {
                    webhooks.keep_sending(&jobs);
                }
                if config.storage.backend == StorageBackend::S3 {
                    registry.sweep_uploads(&jobs);
                }
                if reconcile {
                    registry.reconcile_soon(&jobs);
                }
            }
        }
        Ok(Self {
            state,
            connections,
            addresses,
            socket,
            run_dir,
            jobs,
            tls: tls.is_some(),
            reload,
            keeper,
            _lock: lock,
        })
    }

    /// Whether the TCP listeners speak TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Told to, the server reads passwords, keys and certificates again; it looks by itself every few seconds too.
    pub fn reload(&self) -> Arc<Notify> {
        Arc::clone(&self.reload)
    }

    /// The real addresses of the TCP listeners.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The unix socket that the worker uses.
    pub fn socket_path(&self) -> &Path {
        self.socket.path()
    }

    /// Serves until `shutdown` is done, then finishes running transfers up to the limit.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        let broken = tokio::select! {
            () = shutdown => false,
            () = self.state.registry.metadata.broken() => true,
        };
        self.state.draining.store(true, Ordering::Relaxed);
        if !broken {
            tokio::time::sleep(self.state.registry.limits.shutdown_delay).await;
        }
        remove_addresses(&self.run_dir);
        // Stop order: no new requests and the running ones finished, then background work, then the database.
        // Builds end first: their requests are the ones that would not finish by themselves.
        self.state.building.builds.stop().await;
        self.connections.stop().await;
        self.jobs.stop().await;
        if let Some(notices) = self.state.notices.get() {
            notices.stop().await;
        }
        if let Err(error) = self.state.registry.flush_pulls().await {
            tracing::warn!(error = chain(&error), "the last pulls are not counted");
        }
        self.keeper.abort();
        if broken {
            return Err(ServeError::DatabaseBroken);
        }
        self.state.registry.metadata.close().await.map_err(metadata)
    }
}

/// The sender, if anybody is to be told.
fn webhooks(
    config: &Config,
    registry: &Registry,
    addresses: &[SocketAddr],
) -> Result<Option<Arc<Webhooks>>, ServeError> {
    if config.webhooks.is_empty() {
        return Ok(None);
    }
    let own = config.public_hosts.first().cloned();
    let address = own.or_else(|| addresses.first().map(ToString::to_string));
    Webhooks::new(
        Arc::clone(&registry.metadata),
        config.webhooks.clone(),
        address.unwrap_or_default(),
    )
    .map(|webhooks| Some(Arc::new(webhooks)))
    .map_err(|error| ServeError::Webhooks(Box::new(error)))
}

/// Both stores, open.
struct Opened {
    registry: Arc<Registry>,
    store: StoreMetrics,
    /// The machine went down without an orderly end.
    reconcile: bool,
    /// The database is older than the blob store.
    ahead: Option<JournalAhead>,
}

/// Keeps accounts, keys and certificates as they are outside.
async fn keep(gate: Arc<Gate>, tls: Option<Arc<Tls>>, reload: Arc<Notify>) {
    let mut ticks = tokio::time::interval(RELOAD_INTERVAL);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = reload.notified() => {}
        }
        gate.look_around().await;
        if let Some(tls) = &tls {
            tls.refresh();
        }
    }
}

/// Opens both stores, checks that they belong together, and cleans up.
async fn open(config: &Config) -> Result<Opened, ServeError> {
    let metrics = StoreMetrics::default();
    let store = open_store(config).await.map_err(storage)?;
    let store = Arc::new(Observed::new(store, config.storage.backend.name(), &metrics));
    let limits = limits(config);
    let database = open_database(config, &limits).await.map_err(metadata)?;
    let opened = database.opened().await.map_err(metadata)?;
    let identity = store.identity(&opened.store_uuid).await.map_err(storage)?;
    if identity != opened.store_uuid {
        return Err(ServeError::ForeignStore {
            path: config.data_dir.clone(),
            database: opened.store_uuid,
            store: identity,
        });
    }
    let registry = Registry::new(database, store, limits, config.sparse_indexes)
        .with_policies(Policies::new(config.read_only, config.policies.clone()));
    let registry = if config.webhooks.is_empty() {
        registry
    } else {
        registry.with_webhooks()
    };
    let registry = Arc::new(registry);
    let ahead = registry.journal_ahead().await.map_err(journal)?;
    // Before the server takes requests: in a file system a session's bytes may be there before its row is.
    if config.storage.backend == StorageBackend::Filesystem
        && ahead.is_none()
        && let Err(error) = registry.drop_stray_uploads().await
    {
        tracing::warn!(error = chain(&error), "stray uploads were not removed");
    }
    Ok(Opened {
        registry,
        store: metrics,
        reconcile: opened.after_power_cut,
        ahead,
    })
}

pub(crate) async fn open_database(
    config: &Config,
    limits: &Limits,
) -> Result<Arc<dyn MetadataStore>, MetadataError> {
    match &config.database.url {
        None => {
            let path = config.data_dir.join("registry.db");
            Ok(Arc::new(Sqlite::open(&path, limits).await?))
        }
        Some(url) => {
            // What a bucket has taken stays there whichever machine goes down.
            let boot_id = match config.storage.backend {
                StorageBackend::Filesystem => boot_id(),
                StorageBackend::S3 => "bucket".to_owned(),
            };
            let database = Postgres::open(url, &config.database, boot_id, limits).await?;
            Ok(Arc::new(database))
        }
    }
}

pub(crate) async fn open_store(config: &Config) -> Result<Arc<dyn BlobStore>, StorageError> {
    Ok(match config.storage.backend {
        StorageBackend::Filesystem => {
            let store = Filesystem::open(&config.data_dir).await?;
            Arc::new(store.with_reserve(config.storage.reserve_bytes))
        }
        StorageBackend::S3 => Arc::new(S3::open(&config.storage.s3, &config.data_dir.join("spool")).await?),
    })
}

/// The limits, with those that depend on the store.
fn limits(config: &Config) -> Limits {
    let mut limits = config.limits.clone();
    if config.storage.backend == StorageBackend::S3 {
        limits.delete_delay = config.storage.s3.delete_delay;
    }
    limits
}

fn prepare(data_dir: &Path, run_dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)?;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(run_dir)?;
    // Who may enter it can talk to the worker's socket.
    std::fs::set_permissions(run_dir, std::fs::Permissions::from_mode(0o700))
}

/// So that nobody finds a server that isn't there.
fn remove_addresses(run_dir: &Path) {
    match std::fs::remove_file(run_dir.join("addresses")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, "run/addresses was not removed");
        }
        _ => {}
    }
}

pub(crate) fn journal(error: RegistryError) -> ServeError {
    ServeError::Journal(Box::new(error))
}

pub(crate) fn metadata(error: MetadataError) -> ServeError {
    ServeError::Metadata(Box::new(error))
}

pub(crate) fn storage(error: StorageError) -> ServeError {
    ServeError::Storage(Box::new(error))
}
