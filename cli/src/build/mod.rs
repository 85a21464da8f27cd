//! `layeryard build`: sends the context, starts the build, shows its events.

mod bases;
mod context;
mod dockerfile;
mod render;
mod request;
mod upload;

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use client::api::{BuildOutcome, BuildRequest, BuildStatus};
use client::api_client::Api;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::args::{BuildArgs, ProgressMode};
use crate::failure::Cancelled;
use crate::output;
use crate::server::ServerUrl;
use context::Context;
use render::Screen;

/// How long a cancelled build may take to end before we leave it alone.
const CANCEL_WAIT: Duration = Duration::from_secs(15);

pub(crate) async fn run(args: BuildArgs) -> anyhow::Result<()> {
    let server: ServerUrl = args.server.server.parse()?;
    let (dockerfile, rules) = dockerfile::read(&args.context, args.file.as_deref())?;
    let file_name = dockerfile.name.clone();
    let mut request = request::prepare(&args, &server, dockerfile).await?;
    let context = Context::scan(&args.context, &rules)?;
    for path in &context.skipped {
        output::warn(format_args!(
            "{} is no file, directory or link: not sent",
            path.display()
        ));
    }
    let api = server.api().await?;
    let sent = upload::send(&api, context, args.progress).await;
    request.context = Some(server.explain(sent)?);
    // From here on there is something to cancel; before, a signal ends the program as always.
    let stop = Stop::listen()?;
    let id = server.explain(api.create_build(&request).await)?.id;
    if args.detach {
        return Ok(output::line(id)?);
    }
    let status = watch(&api, &id, stop, Screen::new(args.progress, &file_name)).await?;
    conclude(status, &request, &server, args.progress)
}

/// Shows the build until it ends; an interrupt cancels it, a second one leaves it alone.
async fn watch(api: &Api, id: &str, mut stop: Stop, mut screen: Screen) -> anyhow::Result<BuildStatus> {
    let mut events = api.events(id, 0);
    // Once it is cancelled: how long its end is waited for.
    let mut patience = None;
    let shown = loop {
        tokio::select! {
            biased;
            () = stop.wait() => {
                if patience.is_some() {
                    break Err(anyhow::Error::from(Cancelled));
                }
                patience = Some(Instant::now() + CANCEL_WAIT);
                // It may have ended at this very moment; its events tell.
                if let Err(error) = api.cancel_build(id).await {
                    output::warn(format_args!("cannot cancel the build: {error}"));
                }
            }
            () = sleep_until(patience.unwrap_or_else(Instant::now)), if patience.is_some() => break Err(Cancelled.into()),
            event = events.next() => match event {
                Ok(Some(event)) => screen.show(&event)?,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.into()),
            },
        }
    };
    screen.end();
    shown.with_context(|| format!("lost sight of build {id}"))?;
    api.build(id)
        .await
        .with_context(|| format!("build {id}: no result"))
}

/// Ctrl-C, or the SIGTERM of a CI system that gives a job up.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("cannot handle SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("cannot handle SIGTERM")?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn conclude(
    status: BuildStatus,
    request: &BuildRequest,
    server: &ServerUrl,
    mode: ProgressMode,
) -> anyhow::Result<()> {
    match status.outcome {
        Some(BuildOutcome::Succeeded {
            repository, digest, ..
        }) => {
            for target in &request.tags {
                let name = format!("{}/{}:{}", server.authority(), target.repository, target.tag);
                output::note(format_args!("{name}@{digest}"));
            }
            let name = match request.tags.first() {
                Some(first) => format!("{}/{}:{}", server.authority(), first.repository, first.tag),
                None => format!("{}/{repository}@{digest}", server.authority()),
            };
            output::note(format_args!("Run it: docker run {name}"));
            // With --progress json, standard output is the events' alone.
            if mode != ProgressMode::Json {
                output::line(digest)?;
            }
            Ok(())
        }
        Some(BuildOutcome::Failed { message, .. }) => Err(anyhow!(message).context("the build failed")),
        Some(BuildOutcome::Cancelled) => Err(Cancelled.into()),
        None => Err(anyhow!("the build {} has ended without a result", status.id)),
    }
}
