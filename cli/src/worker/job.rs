//! One leased build, from its job to its outcome.

use std::sync::Arc;
use std::time::Duration;

use builder::event::EventSink;
use builder::exec::{BuildError, BuildInput, BuildOutput, Dockerfile, Services, build};
use client::Registry;
use client::api::{BuildOutcome, Job};
use client::api_client::Api;
use oci::Platform;
use tokio_util::sync::CancellationToken;

use super::Worker;
use super::cache::Cache;
use super::context::Context;
use super::events::Events;
use super::images::Images;
use crate::sink::Sink;

/// How long the server holds a question for a cancel back.
const CONTROL_WAIT_SECONDS: u64 = 30;
const CONTROL_PAUSE: Duration = Duration::from_secs(1);

/// How often and after what pause an outcome that got no answer is sent again.
const RESULT_TRIES: u32 = 10;
const RESULT_PAUSE: Duration = Duration::from_millis(500);

/// Builds and reports. `stop` ends the build when the worker ends.
pub(crate) async fn run(worker: &Worker, job: Job, stop: CancellationToken) {
    let id = job.build.clone();
    tracing::info!(build = id, repository = %job.repository, "build started");
    let api = match Api::unix(&worker.socket, &job.token) {
        Ok(api) => api,
        Err(error) => return tracing::error!(%error, build = id, "no connection for the build"),
    };
    let control = tokio::spawn(watch_control(api.clone(), id.clone(), stop.clone()));
    let outcome = execute(worker, &api, job, stop).await;
    control.abort();
    match &outcome {
        BuildOutcome::Succeeded { digest, .. } => tracing::info!(build = id, %digest, "build succeeded"),
        BuildOutcome::Failed { kind, message, .. } => {
            tracing::info!(build = id, kind, message, "build failed");
        }
        BuildOutcome::Cancelled => tracing::info!(build = id, "build cancelled"),
    }
    report(&api, &id, &outcome).await;
}

async fn execute(worker: &Worker, api: &Api, job: Job, cancel: CancellationToken) -> BuildOutcome {
    let registry = match Registry::unix(&worker.socket, &job.token) {
        Ok(registry) => registry,
        Err(error) => return failed("internal", error.to_string(), None),
    };
    let (events, sender) = Events::start(api.clone(), job.build.clone());
    let repository = job.repository.clone();
    let context = Context::new(
        api.clone(),
        &worker.state_dir,
        &job.build,
        job.request.context.clone(),
    );
    let events: Arc<dyn EventSink> = Arc::new(events);
    let services = Services {
        images: Arc::new(Images {
            api: api.clone(),
            registry: registry.clone(),
            events: events.clone(),
        }),
        sink: Arc::new(Sink {
            registry,
            repository: repository.clone(),
        }),
        cache: Arc::new(Cache {
            api: api.clone(),
            repository: repository.clone(),
        }),
        context: Arc::new(context),
        events,
    };
    // On the heap: the future holds the state of the whole build.
    let built = Box::pin(build(input(job), services, &worker.node, cancel)).await;
    sender.finish().await;
    outcome(repository, built)
}

fn input(job: Job) -> BuildInput {
    let request = job.request;
    BuildInput {
        dockerfile: Dockerfile {
            name: request.dockerfile.name,
            text: request.dockerfile.text,
        },
        target: request.target,
        build_args: request.build_args,
        platform: request.platform.unwrap_or_else(Platform::host),
        no_cache: request.no_cache,
        repository: job.repository,
        tags: request
            .tags
            .into_iter()
            .map(|target| (target.repository, target.tag))
            .collect(),
    }
}

fn outcome(repository: oci::RepoName, built: Result<BuildOutput, BuildError>) -> BuildOutcome {
    match built {
        Ok(output) => BuildOutcome::Succeeded {
            repository,
            digest: output.digest,
            size_bytes: output.manifest_size,
        },
        Err(BuildError::Cancelled) => BuildOutcome::Cancelled,
        Err(error) => failed(error.kind(), describe(&error), error.exit_code()),
    }
}

fn failed(kind: &str, message: String, exit_code: Option<i32>) -> BuildOutcome {
    BuildOutcome::Failed {
        kind: kind.to_owned(),
        message,
        exit_code,
    }
}

/// The error with those causes that its own text leaves out.
fn describe(error: &BuildError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}

/// Waits for the user's cancel.
async fn watch_control(api: Api, build: String, cancel: CancellationToken) {
    loop {
        match api.control(&build, CONTROL_WAIT_SECONDS).await {
            Ok(control) if control.cancelled => return cancel.cancel(),
            Ok(_) => {}
            Err(error) if error.is_outage() => tokio::time::sleep(CONTROL_PAUSE).await,
            // The token is revoked or the build forgotten: nobody wants the result.
            Err(error) => {
                tracing::info!(%error, build, "the server has given the build up");
                return cancel.cancel();
            }
        }
    }
}

async fn report(api: &Api, build: &str, outcome: &BuildOutcome) {
    for _ in 0..RESULT_TRIES {
        match api.send_result(build, outcome).await {
            Ok(()) => return,
            Err(error) if error.is_outage() => tracing::debug!(%error, build, "the result is sent again"),
            Err(error) => return tracing::warn!(%error, build, "the server refuses the result"),
        }
        tokio::time::sleep(RESULT_PAUSE).await;
    }
    tracing::warn!(build, "the result could not be sent");
}
