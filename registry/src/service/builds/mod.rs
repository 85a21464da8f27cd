//! Builds: a queue, their events, and the worker that runs them.
//!
//! A build is a resource: it goes on when its user's connection breaks, its events can be read again from any number,
//! and cancelling it is a call. What the worker does on its behalf it does over HTTP with a token of this build alone,
//! revoked when the build ends.
//!
//! ```text
//! builds/<id>.ndjson   the events (spool.rs)
//! builds/<id>.json     what outlives the server (build::Record)
//! ```

mod build;
mod error;
mod lifecycle;
mod reader;
mod spool;
mod supervisor;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use client::api::{BuildRequest, BuildState, BuildStatus, Credential};
use oci::RepoName;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::access::{Action, BuildGrant, Client, Principal, Tokens};
use super::contexts::Contexts;
use crate::config::WorkerCommand;
use build::Build;
pub(crate) use error::BuildError;
pub(crate) use reader::EventReader;
use supervisor::{Supervisor, WorkerSetup};

pub(crate) type Result<T, E = BuildError> = std::result::Result<T, E>;

/// Builds that may wait at once.
const WAITING_MAX: usize = 256;
/// The longest Dockerfile.
const DOCKERFILE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Names that one build may give its image.
const TAGS_MAX: usize = 64;

/// Times and numbers of the build service.
#[derive(Clone, Debug)]
pub(crate) struct BuildLimits {
    /// A build that is not detached and whose events nobody reads is cancelled after this.
    pub(crate) unwatched_max: Duration,
    /// A leased job that the worker doesn't touch goes back into the queue after this: the answer was lost.
    pub(crate) unconfirmed_max: Duration,
    /// A running build of which the worker says nothing is given up after this.
    pub(crate) silent_max: Duration,
    /// Finished builds are forgotten when they are older, or when there are more.
    pub(crate) finished_age_max: Duration,
    pub(crate) finished_kept_max: usize,
    /// How often all this is looked at.
    pub(crate) tick: Duration,
    /// How long a worker waits for a job in one request.
    pub(crate) lease_wait: Duration,
}

impl Default for BuildLimits {
    fn default() -> Self {
        Self {
            unwatched_max: Duration::from_secs(30),
            unconfirmed_max: Duration::from_secs(30),
            silent_max: Duration::from_secs(120),
            finished_age_max: Duration::from_secs(7 * 24 * 3600),
            finished_kept_max: 500,
            tick: Duration::from_secs(2),
            lease_wait: Duration::from_secs(30),
        }
    }
}

/// The build service.
pub(crate) struct Builds {
    directory: PathBuf,
    limits: BuildLimits,
    contexts: Arc<Contexts>,
    tokens: Arc<Tokens>,
    supervisor: Option<Supervisor>,
    table: Mutex<Table>,
    /// Told when a job waits.
    jobs: Notify,
    /// The task that looks after everything; ended by [`Builds::stop`].
    keeper: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

#[derive(Default)]
struct Table {
    /// By id; ids grow with time.
    builds: BTreeMap<String, Arc<Build>>,
    queue: VecDeque<Arc<Build>>,
    /// What a RUN needs and the worker lacks.
    missing: Vec<String>,
    /// The worker has taken a job since it was started.
    leased: bool,
    stopping: bool,
}

/// What the service is made of.
pub(crate) struct BuildsSetup {
    pub(crate) data_dir: PathBuf,
    /// The server's unix socket.
    pub(crate) socket: PathBuf,
    pub(crate) worker: Option<WorkerCommand>,
    pub(crate) limits: BuildLimits,
    pub(crate) contexts: Arc<Contexts>,
    pub(crate) tokens: Arc<Tokens>,
}

impl Builds {
    /// Takes up what the last run left: builds that ran then have failed.
    pub(crate) async fn open(setup: BuildsSetup) -> Result<Arc<Self>> {
        let directory = setup.data_dir.join("builds");
        let (sender, news) = tokio::sync::mpsc::unbounded_channel();
        let token = setup.tokens.worker().to_owned();
        let supervisor = setup.worker.map(|command| {
            let state_dir = setup.data_dir.join("builder");
            Supervisor::new(
                WorkerSetup {
                    command,
                    socket: setup.socket,
                    token,
                    state_dir,
                },
                sender,
            )
        });
        let builds = lifecycle::restore(&directory, &setup.limits).await?;
        let service = Arc::new(Self {
            directory,
            limits: setup.limits,
            contexts: setup.contexts,
            tokens: setup.tokens,
            supervisor,
            table: Mutex::new(Table {
                builds,
                ..Table::default()
            }),
            jobs: Notify::new(),
            keeper: Mutex::new(None),
        });
        let keeper = tokio::spawn(lifecycle::keep(
            Arc::downgrade(&service),
            service.limits.tick,
            news,
        ));
        *service.keeper.lock() = Some(keeper);
        Ok(service)
    }

    /// Queues a build for a caller who may push to all its targets; returns its id.
    pub(crate) async fn create(
        &self,
        principal: &Principal,
        request: BuildRequest,
        host: Option<String>,
    ) -> Result<String> {
        let targets = targets(&request);
        let granted = |repository| principal.may(Action::Push, repository);
        // A build's token has the rights, but must not start builds that outlive it.
        let creator = principal
            .client()
            .filter(|_| principal.may_build() && targets.iter().all(granted));
        let Some(creator) = creator else {
            let repositories = targets.into_iter().collect();
            return Err(BuildError::Denied {
                actor: principal.actor(),
                repositories,
            });
        };
        check(&request)?;
        let supervisor = self.supervisor.as_ref().ok_or(BuildError::NoWorker)?;
        if let Some(context) = &request.context {
            self.contexts.claim(context)?;
        }
        let queued = self.enqueue(request.clone(), host, Arc::clone(creator)).await;
        let build = queued.inspect_err(|_| self.contexts.release(request.context.as_deref()))?;
        supervisor.start().map_err(|source| BuildError::File {
            path: "the worker's thread".into(),
            source,
        })?;
        self.jobs.notify_one();
        self.refuse_unable(&build).await;
        Ok(build.id.clone())
    }

    async fn enqueue(
        &self,
        request: BuildRequest,
        host: Option<String>,
        creator: Arc<Client>,
    ) -> Result<Arc<Build>> {
        let id = uuid::Uuid::now_v7().simple().to_string();
        let spool = self.directory.join(format!("{id}.ndjson"));
        let build = Arc::new(Build::new(id, spool, request, host, creator));
        lifecycle::save(&self.directory, &build).await?;
        let mut table = self.table.lock();
        if table.stopping {
            return Err(BuildError::Stopping);
        }
        let waiting = table.queue.len();
        if waiting >= WAITING_MAX {
            return Err(BuildError::Busy { waiting });
        }
        table.builds.insert(build.id.clone(), Arc::clone(&build));
        table.queue.push_back(Arc::clone(&build));
        Ok(build)
    }

    /// The builds that a caller may see, newest first.
    pub(crate) fn list(&self, principal: &Principal) -> Vec<BuildStatus> {
        let builds: Vec<Arc<Build>> = self.table.lock().builds.values().rev().cloned().collect();
        let visible = builds.iter().filter(|build| Self::sees(principal, build));
        visible.map(|build| build.status()).collect()
    }

    pub(crate) fn status(&self, principal: &Principal, id: &str) -> Result<BuildStatus> {
        Ok(self.visible(principal, id)?.status())
    }

    /// The build's events after a number.
    pub(crate) async fn events(&self, principal: &Principal, id: &str, after: u64) -> Result<EventReader> {
        let build = self.visible(principal, id)?;
        let path = build.spool_path.clone();
        EventReader::new(build, after)
            .await
            .map_err(|source| BuildError::File { path, source })
    }

    /// Ends a build that has not ended. Its token is worthless from now on.
    pub(crate) async fn cancel(&self, principal: &Principal, id: &str) -> Result<()> {
        let build = self.visible(principal, id)?;
        if !principal.may(Action::Push, &build.repository) {
            let repositories = vec![build.repository.clone()];
            return Err(BuildError::Denied {
                actor: principal.actor(),
                repositories,
            });
        }
        self.end(&build, client::api::BuildOutcome::Cancelled).await;
        Ok(())
    }

    /// The credential that a build's user gave for an upstream registry.
    pub(crate) fn credential(&self, build: &str, host: &str) -> Option<Credential> {
        self.find(build).ok()?.credential(host)
    }

    /// Adds an event of the server's own to a build's, as long as it runs.
    pub(crate) async fn note(&self, id: &str, event: serde_json::Value) {
        let Ok(build) = self.find(id) else {
            return;
        };
        let mut incoming = build.spool.lock().await;
        if has_ended(&build) {
            return;
        }
        match incoming.spool.append(build::now_ms(), vec![event]).await {
            Ok(extent) => build.progress.send_modify(|progress| progress.extent = extent),
            Err(error) => tracing::warn!(build = id, %error, "an event is lost"),
        }
    }

    /// Whether the caller is the worker of a build that has this context.
    pub(crate) fn may_read_context(&self, principal: &Principal, context: &str) -> bool {
        let Principal::Build(grant) = principal else {
            return false;
        };
        let Ok(build) = self.find(&grant.build) else {
            return false;
        };
        let state = build.state.lock();
        state
            .request
            .as_ref()
            .is_some_and(|request| request.context.as_deref() == Some(context))
    }

    /// The host by which a build's user calls this server.
    pub(crate) fn host(&self, build: &str) -> Option<String> {
        self.find(build).ok()?.host.clone()
    }

    fn find(&self, id: &str) -> Result<Arc<Build>> {
        let table = self.table.lock();
        table
            .builds
            .get(id)
            .cloned()
            .ok_or_else(|| BuildError::Unknown(id.to_owned()))
    }

    /// A build that the caller may see; others don't exist for it.
    fn visible(&self, principal: &Principal, id: &str) -> Result<Arc<Build>> {
        let build = self.find(id)?;
        if Self::sees(principal, &build) {
            Ok(build)
        } else {
            Err(BuildError::Unknown(id.to_owned()))
        }
    }

    fn sees(principal: &Principal, build: &Build) -> bool {
        match principal {
            Principal::Build(grant) => grant.build == build.id,
            other => other.may(Action::Pull, &build.repository),
        }
    }
}

/// Every repository that a build writes to.
fn targets(request: &BuildRequest) -> BTreeSet<RepoName> {
    let tagged = request.tags.iter().map(|target| target.repository.clone());
    tagged.chain([build::repository_of(request)]).collect()
}

fn grant(build: &Build, request: &BuildRequest) -> Option<BuildGrant> {
    Some(BuildGrant {
        build: build.id.clone(),
        creator: ArcSwap::new(Arc::clone(build.creator.as_ref()?)),
        fetched: Mutex::default(),
        push: targets(request),
        cache: build::repository_of(request),
    })
}

fn check(request: &BuildRequest) -> Result<()> {
    let invalid = |text: String| Err(BuildError::Invalid(text));
    if request.dockerfile.text.len() > DOCKERFILE_BYTES_MAX {
        return invalid(format!(
            "the Dockerfile has more than {DOCKERFILE_BYTES_MAX} bytes"
        ));
    }
    if request.dockerfile.text.trim().is_empty() {
        return invalid(format!("the Dockerfile {:?} is empty", request.dockerfile.name));
    }
    if request.tags.len() > TAGS_MAX {
        return invalid(format!(
            "a build has at most {TAGS_MAX} names, not {}",
            request.tags.len()
        ));
    }
    if let Some(name) = request
        .build_args
        .keys()
        .find(|name| name.is_empty() || name.contains('='))
    {
        return invalid(format!("build argument {name:?} has no valid name"));
    }
    Ok(())
}

/// Whether a build can no longer change.
fn has_ended(build: &Build) -> bool {
    build.phase() == BuildState::Finished
}
