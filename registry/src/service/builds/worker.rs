//! The worker's side: taking jobs, telling events, hearing of a cancel, handing in the result.

use std::sync::Arc;
use std::time::{Duration, Instant};

use client::api::{BuildOutcome, BuildState, Control, EventBatch, Job, LeaseRequest};
use tokio::time::timeout_at;

use super::build::{Build, now_ms};
use super::{BuildError, Builds, Result, grant, lifecycle};
use crate::service::access::Principal;

/// How long one request may wait for a cancel.
const CONTROL_WAIT_MAX: Duration = Duration::from_secs(60);
/// Events of one batch.
const BATCH_EVENTS_MAX: usize = 10_000;

impl Builds {
    /// Waits a while for a job. A worker that lacks something gets none, and whoever waits is told what it lacks.
    pub(crate) async fn lease(&self, request: LeaseRequest) -> Option<Job> {
        let unable = !request.missing.is_empty();
        if unable {
            let outcome = lifecycle::unable(&request.missing);
            tracing::warn!(
                missing = request.missing.join("; "),
                "the build worker cannot build"
            );
            self.table.lock().missing = request.missing;
            self.end_all(outcome, |build| build.phase() == BuildState::Queued)
                .await;
        } else {
            self.table.lock().missing.clear();
        }
        let deadline = tokio::time::Instant::now() + self.limits.lease_wait;
        loop {
            // Registered before looking, so that a job that comes in between is not slept over.
            let mut waiting = std::pin::pin!(self.jobs.notified());
            waiting.as_mut().enable();
            if !unable && let Some(job) = self.take_job() {
                return Some(job);
            }
            timeout_at(deadline, waiting).await.ok()?;
        }
    }

    fn take_job(&self) -> Option<Job> {
        let mut table = self.table.lock();
        loop {
            let build = table.queue.pop_front()?;
            let Some(request) = build.state.lock().request.clone() else {
                continue;
            };
            let Some(grant) = grant(&build, &request) else {
                continue;
            };
            table.leased = true;
            {
                let mut state = build.state.lock();
                state.worker_heard = Instant::now();
                state.confirmed = false;
            }
            build.progress.send_modify(|progress| {
                if progress.state == BuildState::Queued {
                    progress.state = BuildState::Running;
                }
            });
            if !table.queue.is_empty() {
                self.jobs.notify_one();
            }
            return Some(Job {
                build: build.id.clone(),
                token: self.tokens.issue(grant),
                repository: build.repository.clone(),
                // Credentials stay here: the server fetches upstream images itself.
                request: client::api::BuildRequest {
                    credentials: Default::default(),
                    ..request
                },
            });
        }
    }

    /// Takes a worker's events, each once however often it is sent.
    pub(crate) async fn append(&self, principal: &Principal, id: &str, batch: EventBatch) -> Result<Control> {
        let build = self.own(principal, id)?;
        let _call = WorkerCall::new(&build);
        if batch.events.len() > BATCH_EVENTS_MAX {
            return Err(BuildError::Invalid(format!(
                "a batch has at most {BATCH_EVENTS_MAX} events"
            )));
        }
        if let Some(odd) = batch.events.iter().find(|event| !event.is_object()) {
            let kind = if odd.is_array() { "an array" } else { "no object" };
            return Err(BuildError::Invalid(format!(
                "an event is a JSON object, this one is {kind}"
            )));
        }
        let mut incoming = build.spool.lock().await;
        if super::has_ended(&build) {
            return Ok(Control { cancelled: true });
        }
        let Some(known) = incoming.received.checked_sub(batch.first) else {
            let (build, expected, first) = (id.to_owned(), incoming.received, batch.first);
            return Err(BuildError::Gap {
                build,
                expected,
                first,
            });
        };
        let fresh: Vec<_> = batch.events.into_iter().skip(known as usize).collect();
        let count = fresh.len() as u64;
        let path = build.spool_path.clone();
        let written = incoming.spool.append(now_ms(), fresh).await;
        let extent = written.map_err(|source| BuildError::File { path, source })?;
        incoming.received += count;
        build.progress.send_modify(|progress| progress.extent = extent);
        Ok(Control { cancelled: false })
    }

    /// Answers when the build is cancelled or `wait` is over.
    pub(crate) async fn control(&self, principal: &Principal, id: &str, wait: Duration) -> Result<Control> {
        let build = self.own(principal, id)?;
        let _call = WorkerCall::new(&build);
        let mut changes = build.progress.subscribe();
        let ended = changes.wait_for(|progress| progress.state == BuildState::Finished);
        let cancelled = tokio::time::timeout(wait.min(CONTROL_WAIT_MAX), ended)
            .await
            .is_ok();
        Ok(Control { cancelled })
    }

    /// Ends the build as its worker says.
    pub(crate) async fn finish(&self, principal: &Principal, id: &str, outcome: BuildOutcome) -> Result<()> {
        let build = self.own(principal, id)?;
        self.end(&build, outcome).await;
        Ok(())
    }

    /// The build whose token the caller has.
    fn own(&self, principal: &Principal, id: &str) -> Result<Arc<Build>> {
        match principal {
            Principal::Build(grant) if grant.build == id => self.find(id),
            _ => Err(BuildError::WrongToken(id.to_owned())),
        }
    }
}

/// A call of the worker under way: as long as there is one, it is not silent.
struct WorkerCall<'a>(&'a Build);

impl<'a> WorkerCall<'a> {
    fn new(build: &'a Build) -> Self {
        let mut state = build.state.lock();
        state.worker_calls += 1;
        state.confirmed = true;
        drop(state);
        Self(build)
    }
}

impl Drop for WorkerCall<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.worker_calls -= 1;
        state.worker_heard = Instant::now();
    }
}
