//! One build: what was asked, how far it is, who reads along.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use client::api::{BuildOutcome, BuildRequest, BuildState, BuildStatus, Credential, TagTarget};
use oci::RepoName;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;

use super::spool::{Extent, Spool};
use crate::service::access::Client;

/// Where the layers of a build without a tag are kept.
const UNTAGGED_REPOSITORY: &str = "untagged";

pub(super) struct Build {
    pub(super) id: String,
    pub(super) tags: Vec<TagTarget>,
    pub(super) repository: RepoName,
    pub(super) created_at_ms: u64,
    /// The host by which the user called this server.
    pub(super) host: Option<String>,
    /// Whose rights it has; unknown for builds of earlier runs, which have ended.
    pub(super) creator: Option<Arc<Client>>,
    pub(super) spool_path: PathBuf,
    /// Held while a batch of events is written.
    pub(super) spool: tokio::sync::Mutex<Incoming>,
    pub(super) state: Mutex<State>,
    /// Told at every change that somebody may wait for.
    pub(super) progress: watch::Sender<Progress>,
}

/// The worker's events on their way to the spool.
pub(super) struct Incoming {
    pub(super) spool: Spool,
    /// How many events the worker has sent.
    pub(super) received: u64,
}

/// What readers and the worker wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) state: BuildState,
    pub(super) extent: Extent,
}

pub(super) struct State {
    /// Gone when the build has ended: it holds credentials.
    pub(super) request: Option<BuildRequest>,
    pub(super) outcome: Option<BuildOutcome>,
    pub(super) finished_at: Option<Instant>,
    /// Who reads the events, and since when nobody does.
    pub(super) readers: usize,
    pub(super) unwatched_since: Instant,
    /// The worker's calls under way, and when it was heard last.
    pub(super) worker_calls: usize,
    pub(super) worker_heard: Instant,
    /// The worker has confirmed the job by a call with its token.
    pub(super) confirmed: bool,
}

/// What outlives the server: no credentials, no arguments.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) tags: Vec<TagTarget>,
    pub(super) repository: RepoName,
    pub(super) created_at_ms: u64,
    pub(super) outcome: Option<BuildOutcome>,
    /// How far the events go; known when the build has ended.
    pub(super) extent: Option<Extent>,
}

impl Build {
    pub(super) fn new(
        id: String,
        spool_path: PathBuf,
        request: BuildRequest,
        host: Option<String>,
        creator: Arc<Client>,
    ) -> Self {
        let repository = repository_of(&request);
        let record = Record {
            id,
            tags: request.tags.clone(),
            repository,
            created_at_ms: now_ms(),
            outcome: None,
            extent: None,
        };
        let mut build = Self::from_parts(record, spool_path, Some(request), host, Extent::default());
        build.creator = Some(creator);
        build
    }

    /// A build of an earlier run of the server.
    pub(super) fn restored(record: Record, spool_path: PathBuf, extent: Extent) -> Self {
        Self::from_parts(record, spool_path, None, None, extent)
    }

    fn from_parts(
        record: Record,
        spool_path: PathBuf,
        request: Option<BuildRequest>,
        host: Option<String>,
        extent: Extent,
    ) -> Self {
        let now = Instant::now();
        let finished = record.outcome.is_some();
        let state = if finished {
            BuildState::Finished
        } else {
            BuildState::Queued
        };
        Self {
            id: record.id,
            tags: record.tags,
            repository: record.repository,
            created_at_ms: record.created_at_ms,
            host,
            creator: None,
            spool: tokio::sync::Mutex::new(Incoming {
                spool: Spool::new(spool_path.clone()),
                received: 0,
            }),
            spool_path,
            state: Mutex::new(State {
                request,
                outcome: record.outcome,
                finished_at: finished.then_some(now),
                readers: 0,
                unwatched_since: now,
                worker_calls: 0,
                worker_heard: now,
                confirmed: false,
            }),
            progress: watch::Sender::new(Progress { state, extent }),
        }
    }

    pub(super) fn phase(&self) -> BuildState {
        self.progress.borrow().state
    }

    pub(super) fn record(&self) -> Record {
        Record {
            id: self.id.clone(),
            tags: self.tags.clone(),
            repository: self.repository.clone(),
            created_at_ms: self.created_at_ms,
            outcome: self.state.lock().outcome.clone(),
            extent: Some(self.progress.borrow().extent),
        }
    }

    pub(super) fn status(&self) -> BuildStatus {
        let progress = *self.progress.borrow();
        BuildStatus {
            id: self.id.clone(),
            state: progress.state,
            tags: self.tags.clone(),
            created_at: rfc3339(self.created_at_ms),
            outcome: self.state.lock().outcome.clone(),
            last_seq: progress.extent.last_seq,
        }
    }

    /// The credential that the build's user gave for an upstream.
    pub(super) fn credential(&self, host: &str) -> Option<Credential> {
        let state = self.state.lock();
        state.request.as_ref()?.credentials.get(host).cloned()
    }

    /// Ends the build unless it has ended. The caller tells everybody.
    pub(super) fn end(&self, outcome: BuildOutcome) -> Option<BuildRequest> {
        let mut state = self.state.lock();
        if state.outcome.is_some() {
            return None;
        }
        state.outcome = Some(outcome);
        state.finished_at = Some(Instant::now());
        let request = state.request.take();
        drop(state);
        self.progress
            .send_modify(|progress| progress.state = BuildState::Finished);
        request
    }
}

pub(super) fn repository_of(request: &BuildRequest) -> RepoName {
    match request.tags.first() {
        Some(target) => target.repository.clone(),
        None => UNTAGGED_REPOSITORY.parse().expect("a constant name is valid"),
    }
}

pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

fn rfc3339(at_ms: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at_ms) * 1_000_000);
    at.ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_default()
}
