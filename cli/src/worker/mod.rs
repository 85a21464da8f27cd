//! `layeryard worker`: builds for the server that started it. Implements the builder's four traits over crate `client`;
//! its only door to the registry is HTTP with a token that is good for one build.
//!
//! | Process | Sees |
//! |---|---|
//! | `serve` | database, blobs, uploads, contexts, event spools |
//! | `worker` | `builder/` and the socket `run/api.sock`; the rest of the data directory is an empty file system |

mod cache;
mod context;
mod events;
mod images;
mod job;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use builder::exec::{Node, NodeConfig};
use client::api::{LeaseRequest, WORKER_SOCKET_ENV, WORKER_STATE_ENV, WORKER_TOKEN_ENV};
use client::api_client::Api;
use registry::{LogConfig, LogFormat};
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::logging;
use crate::serve::{LOG_FORMAT_ENV, LOG_LEVEL_ENV};

/// Builds at once, on a machine with fewer cores than that; else one a core. Most of a build waits.
const BUILDS_MIN: usize = 2;

/// How often a server that does not answer is asked again before it counts as gone.
const LEASE_FAILURES_MAX: u32 = 4;
const LEASE_PAUSE: Duration = Duration::from_millis(250);

/// What the data directory keeps visible for a worker.
const VISIBLE: [&str; 2] = ["builder", "run"];

/// What the server put into the environment.
struct Assignment {
    socket: PathBuf,
    token: String,
    state_dir: PathBuf,
}

/// What all jobs share.
pub(crate) struct Worker {
    pub(crate) socket: PathBuf,
    pub(crate) api: Api,
    pub(crate) state_dir: PathBuf,
    pub(crate) node: Node,
}

pub(crate) fn run() -> anyhow::Result<()> {
    let assignment = Assignment::from_env()?;
    // A worker without its server would only hold the state directory. The server starts it from a thread that lives as
    // long as itself.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .context("cannot be tied to the server")?;
    std::fs::create_dir_all(&assignment.state_dir).with_context(|| {
        format!(
            "cannot make the worker's directory {}",
            assignment.state_dir.display()
        )
    })?;
    // Before the first thread: a mount namespace belongs to a thread and those it starts.
    let hidden = hide_data(&assignment.state_dir);
    let log = logging::start(&log_settings(), None)?;
    match hidden {
        Ok(true) => tracing::debug!("the data directory is out of sight"),
        Ok(false) => tracing::debug!("the state directory lies in no data directory"),
        Err(error) => tracing::warn!(%error, "the worker sees the whole data directory"),
    }
    let worked = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?
        .block_on(work(assignment));
    drop(log);
    worked
}

impl Assignment {
    fn from_env() -> anyhow::Result<Self> {
        let read = |name: &str| {
            std::env::var(name)
                .with_context(|| format!("{name} is not set: `layeryard serve` starts workers"))
        };
        Ok(Self {
            socket: read(WORKER_SOCKET_ENV)?.into(),
            token: read(WORKER_TOKEN_ENV)?,
            state_dir: read(WORKER_STATE_ENV)?.into(),
        })
    }
}

/// Empties the data directory for this process, if the state directory lies in one and we may.
fn hide_data(state_dir: &Path) -> Result<bool, runtime::IsolateError> {
    let Some(data_dir) = state_dir
        .parent()
        .filter(|parent| parent.join("registry.db").exists())
    else {
        return Ok(false);
    };
    runtime::hide_directory(data_dir, &VISIBLE).map(|()| true)
}

fn log_settings() -> LogConfig {
    let format = match std::env::var(LOG_FORMAT_ENV).as_deref() {
        Ok("json") => LogFormat::Json,
        _ => LogFormat::Text,
    };
    let level = std::env::var(LOG_LEVEL_ENV).unwrap_or_else(|_| "info".into());
    LogConfig { format, level }
}

async fn work(assignment: Assignment) -> anyhow::Result<()> {
    let missing = runtime::probe()
        .err()
        .map(|found| found.missing)
        .unwrap_or_default();
    let lease = LeaseRequest {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        missing: sentences(&missing),
    };
    let state_dir = assignment.state_dir.clone();
    let node = tokio::task::spawn_blocking(move || {
        context::clear(&state_dir)?;
        Node::open(&NodeConfig::new(&state_dir)).context("cannot open the builder's directory")
    });
    let worker = Arc::new(Worker {
        api: Api::unix(&assignment.socket, &assignment.token)?,
        node: node.await??,
        socket: assignment.socket,
        state_dir: assignment.state_dir,
    });
    tracing::info!(state_dir = %worker.state_dir.display(), "worker ready");
    let stop = CancellationToken::new();
    let mut jobs = JoinSet::new();
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let leased = tokio::select! {
        leased = lease_until_gone(&worker, &lease, &mut jobs, &stop) => leased,
        _ = terminate.recv() => Ok(()),
    };
    stop.cancel();
    while let Some(ended) = jobs.join_next().await {
        note_panic(ended);
    }
    leased
}

/// A sentence for each remedy, with all that it helps against.
fn sentences(missing: &[runtime::MissingPermission]) -> Vec<String> {
    let by_remedy = missing.chunk_by(|one, next| one.remedy == next.remedy);
    let sentence = |same: &[runtime::MissingPermission]| {
        let operations: Vec<String> = same
            .iter()
            .map(|lack| format!("cannot {} ({})", lack.operation, lack.reason))
            .collect();
        let remedy = same.first().map(|lack| lack.remedy).unwrap_or_default();
        format!("{}: {remedy}", operations.join(", "))
    };
    by_remedy.map(sentence).collect()
}

/// Takes jobs as they come; ends with the server.
async fn lease_until_gone(
    worker: &Arc<Worker>,
    lease: &LeaseRequest,
    jobs: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let slots = Arc::new(Semaphore::new(cores.max(BUILDS_MIN)));
    let mut failures = 0;
    loop {
        let slot = slots
            .clone()
            .acquire_owned()
            .await
            .context("the worker's slots are closed")?;
        while let Some(ended) = jobs.try_join_next() {
            note_panic(ended);
        }
        match worker.api.lease(lease).await {
            Ok(Some(job)) => {
                failures = 0;
                let (worker, stop) = (worker.clone(), stop.child_token());
                jobs.spawn(async move {
                    job::run(&worker, job, stop).await;
                    drop(slot);
                });
            }
            Ok(None) => failures = 0,
            Err(error) if error.is_outage() && failures < LEASE_FAILURES_MAX => {
                failures += 1;
                tokio::time::sleep(LEASE_PAUSE).await;
            }
            Err(error) if error.is_outage() => {
                tracing::info!(%error, "the server is gone");
                return Ok(());
            }
            Err(error) => bail!("the server gives no jobs: {error}"),
        }
    }
}

/// A build that panics takes nothing else down; the server learns of it when its token times out.
fn note_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a build ended badly");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_is_told_once() {
        let lack = |operation: &str, remedy| runtime::MissingPermission {
            operation: operation.into(),
            reason: "EPERM".into(),
            remedy,
        };
        let missing = [
            lack("mount", "be root"),
            lack("clone", "be root"),
            lack("route", "add a bridge"),
        ];
        assert_eq!(
            sentences(&missing),
            [
                "cannot mount (EPERM), cannot clone (EPERM): be root",
                "cannot route (EPERM): add a bridge"
            ]
        );
    }
}
