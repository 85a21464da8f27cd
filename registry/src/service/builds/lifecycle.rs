//! How builds end: by themselves, by their user, by nobody watching, with their worker, with the server.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use client::api::{BuildOutcome, BuildState};
use tokio::sync::mpsc::UnboundedReceiver;

use super::build::{Build, Record, now_ms};
use super::supervisor::WorkerNews;
use super::{BuildError, BuildLimits, Builds, Result, has_ended, spool};

impl Builds {
    /// Ends a build once: the first outcome counts.
    pub(super) async fn end(&self, build: &Arc<Build>, outcome: BuildOutcome) {
        self.tokens.revoke(&build.id);
        // Events that are being written still belong to it.
        let incoming = build.spool.lock().await;
        let Some(request) = build.end(outcome) else {
            return;
        };
        drop(incoming);
        self.table.lock().queue.retain(|queued| queued.id != build.id);
        // Again: a lease may have been under way. From here on there is no request to lease.
        self.tokens.revoke(&build.id);
        self.contexts.release(request.context.as_deref());
        if let Err(error) = save(&self.directory, build).await {
            tracing::warn!(%error, build = build.id, "the build's end is not on disk");
        }
    }

    /// Fails a build at once if the worker has said that it cannot run any.
    pub(super) async fn refuse_unable(&self, build: &Arc<Build>) {
        let missing = self.table.lock().missing.clone();
        if !missing.is_empty() {
            self.end(build, unable(&missing)).await;
        }
    }

    pub(super) async fn end_all(&self, outcome: BuildOutcome, which: impl Fn(&Build) -> bool) {
        let all: Vec<Arc<Build>> = self.table.lock().builds.values().cloned().collect();
        for build in all.iter().filter(|build| !has_ended(build) && which(build)) {
            self.end(build, outcome.clone()).await;
        }
    }

    async fn worker_news(&self, news: WorkerNews) {
        match news {
            WorkerNews::NotStarted(error) => {
                let message = format!("the build worker cannot be started: {error}");
                self.end_all(failed("unavailable", message), |_| true).await;
            }
            WorkerNews::Died { how, lived } => {
                let leased = std::mem::take(&mut self.table.lock().leased);
                let message = format!("the build worker crashed: {how}; the server goes on, build again");
                let outcome = failed("builder_crashed", message);
                self.end_all(outcome, |build| build.phase() == BuildState::Running)
                    .await;
                if !leased && lived < Duration::from_secs(10) {
                    let message =
                        format!("the build worker does not start: {how}; the server's log says more");
                    self.end_all(failed("builder_crashed", message), |_| true).await;
                }
            }
        }
    }

    async fn tick(&self) {
        let all: Vec<Arc<Build>> = self.table.lock().builds.values().cloned().collect();
        for build in all.iter().filter(|build| !has_ended(build)) {
            match verdict(build, &self.limits) {
                Verdict::Fine => {}
                Verdict::Unwatched => {
                    tracing::info!(build = build.id, "nobody reads the build's events: cancelled");
                    self.end(build, BuildOutcome::Cancelled).await;
                }
                Verdict::Unconfirmed => self.requeue(build),
                Verdict::Silent => {
                    let seconds = self.limits.silent_max.as_secs();
                    let message = format!("the build worker has said nothing for {seconds} s");
                    self.end(build, failed("builder_crashed", message)).await;
                }
            }
        }
        self.forget_old(&all).await;
    }

    /// Gives a job back whose lease never reached the worker.
    fn requeue(&self, build: &Arc<Build>) {
        self.tokens.revoke(&build.id);
        let mut table = self.table.lock();
        build.progress.send_modify(|progress| {
            if progress.state == BuildState::Running {
                progress.state = BuildState::Queued;
            }
        });
        if build.phase() == BuildState::Queued {
            table.queue.push_front(Arc::clone(build));
            self.jobs.notify_one();
        }
    }

    async fn forget_old(&self, all: &[Arc<Build>]) {
        let finished: Vec<&Arc<Build>> = all.iter().filter(|build| has_ended(build)).collect();
        let surplus = finished.len().saturating_sub(self.limits.finished_kept_max);
        let oldest_ms = now_ms().saturating_sub(self.limits.finished_age_max.as_millis() as u64);
        for (index, build) in finished.iter().enumerate() {
            if index < surplus || build.created_at_ms < oldest_ms {
                self.table.lock().builds.remove(&build.id);
                forget(&self.directory, &build.id).await;
            }
        }
    }

    /// Ends all builds and the worker.
    pub(crate) async fn stop(self: &Arc<Self>) {
        self.table.lock().stopping = true;
        if let Some(keeper) = self.keeper.lock().take() {
            keeper.abort();
        }
        let message = "the server was stopped while the build ran: build again".to_owned();
        self.end_all(failed("internal", message), |_| true).await;
        let service = Arc::clone(self);
        let stopping = tokio::task::spawn_blocking(move || {
            if let Some(supervisor) = &service.supervisor {
                supervisor.stop();
            }
        });
        if stopping.await.is_err() {
            tracing::error!("stopping the build worker failed");
        }
    }
}

enum Verdict {
    Fine,
    Unwatched,
    Unconfirmed,
    Silent,
}

fn verdict(build: &Build, limits: &BuildLimits) -> Verdict {
    let phase = build.phase();
    let state = build.state.lock();
    let detached = state.request.as_ref().is_none_or(|request| request.detached);
    if !detached && state.readers == 0 && state.unwatched_since.elapsed() > limits.unwatched_max {
        return Verdict::Unwatched;
    }
    if phase != BuildState::Running || state.worker_calls > 0 {
        return Verdict::Fine;
    }
    let quiet = state.worker_heard.elapsed();
    match state.confirmed {
        false if quiet > limits.unconfirmed_max => Verdict::Unconfirmed,
        true if quiet > limits.silent_max => Verdict::Silent,
        _ => Verdict::Fine,
    }
}

pub(super) fn failed(kind: &str, message: String) -> BuildOutcome {
    BuildOutcome::Failed {
        kind: kind.to_owned(),
        message,
        exit_code: None,
    }
}

pub(super) fn unable(missing: &[String]) -> BuildOutcome {
    failed(
        "unavailable",
        format!("this server cannot run builds: {}", missing.join("; ")),
    )
}

/// Looks after the builds until the service is dropped.
pub(super) async fn keep(service: Weak<Builds>, tick: Duration, mut news: UnboundedReceiver<WorkerNews>) {
    let mut ticks = tokio::time::interval(tick);
    let mut open = true;
    loop {
        let heard = tokio::select! {
            heard = news.recv(), if open => heard,
            _ = ticks.tick() => {
                match service.upgrade() {
                    Some(service) => service.tick().await,
                    None => return,
                }
                continue;
            }
        };
        match (heard, service.upgrade()) {
            (Some(heard), Some(service)) => service.worker_news(heard).await,
            (None, _) => open = false,
            (Some(_), None) => return,
        }
    }
}

/// Writes a build's record. Not synced: a power cut may lose the history, never an image.
pub(super) async fn save(directory: &Path, build: &Build) -> Result<()> {
    let path = directory.join(format!("{}.json", build.id));
    let failed = |source| BuildError::File {
        path: path.clone(),
        source,
    };
    let text = serde_json::to_vec(&build.record()).map_err(|error| failed(error.into()))?;
    let temporary = path.with_extension("json.tmp");
    tokio::fs::write(&temporary, text).await.map_err(failed)?;
    tokio::fs::rename(&temporary, &path).await.map_err(failed)
}

async fn forget(directory: &Path, id: &str) {
    for extension in ["json", "ndjson"] {
        let path = directory.join(format!("{id}.{extension}"));
        if let Err(error) = tokio::fs::remove_file(&path).await
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove an old build's file");
        }
    }
}

/// Reads what earlier runs of the server left.
pub(super) async fn restore(directory: &Path, limits: &BuildLimits) -> Result<BTreeMap<String, Arc<Build>>> {
    let failed = |source| BuildError::File {
        path: directory.to_owned(),
        source,
    };
    tokio::fs::create_dir_all(directory).await.map_err(failed)?;
    let mut entries = tokio::fs::read_dir(directory).await.map_err(failed)?;
    let mut names = Vec::new();
    while let Some(entry) = entries.next_entry().await.map_err(failed)? {
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let mut builds = BTreeMap::new();
    for name in &names {
        if let Some(id) = name.strip_suffix(".json")
            && let Some(build) = restore_one(directory, id).await
        {
            builds.insert(id.to_owned(), build);
        }
    }
    // Events without a record, temporary files.
    for name in names.iter().filter(|name| !name.ends_with(".json")) {
        let id = name.split('.').next().unwrap_or_default();
        if !builds.contains_key(id) || name.ends_with(".tmp") {
            let _ = tokio::fs::remove_file(directory.join(name)).await;
        }
    }
    tracing::debug!(
        builds = builds.len(),
        kept_max = limits.finished_kept_max,
        "finished builds of earlier runs"
    );
    Ok(builds)
}

async fn restore_one(directory: &Path, id: &str) -> Option<Arc<Build>> {
    let path = directory.join(format!("{id}.json"));
    let text = tokio::fs::read(&path).await.ok()?;
    let Ok(mut record) = serde_json::from_slice::<Record>(&text) else {
        tracing::warn!(path = %path.display(), "a build's record is unreadable: removed");
        forget(directory, id).await;
        return None;
    };
    let spool_path = directory.join(format!("{id}.ndjson"));
    let interrupted = record.outcome.is_none();
    let extent = match record.extent.filter(|_| !interrupted) {
        Some(extent) => extent,
        None => spool::extent_of(&spool_path).await.unwrap_or_default(),
    };
    if interrupted {
        let message = "the server restarted while the build was waiting or running: build again".to_owned();
        record.outcome = Some(failed("internal", message));
    }
    let build = Arc::new(Build::restored(record, spool_path, extent));
    build.state.lock().finished_at = Some(Instant::now());
    if interrupted && let Err(error) = save(directory, &build).await {
        tracing::warn!(%error, "an interrupted build's end is not on disk");
    }
    Some(build)
}
