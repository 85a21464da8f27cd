//! `layeryard verify`

use std::time::Duration;

use bytesize::ByteSize;
use client::api::verify::{VerifyState, VerifyStatus};

use crate::args::VerifyArgs;
use crate::failure::Reported;
use crate::output;
use crate::server::ServerUrl;

const POLL: Duration = Duration::from_millis(500);

pub(crate) async fn verify(args: VerifyArgs) -> anyhow::Result<()> {
    let server: ServerUrl = args.server.server.parse()?;
    let api = server.api().await?;
    let mut status = if args.stop {
        server.explain(api.stop_verification().await)?
    } else if args.status {
        server.explain(api.verification().await)?
    } else {
        server.explain(api.verify().await)?
    };
    let follow = !(args.stop || args.status || args.detach);
    while follow && status.state == VerifyState::Running {
        tokio::time::sleep(POLL).await;
        status = server.explain(api.verification().await)?;
    }
    report(&status)?;
    let broken = !status.corrupt.is_empty() || !status.missing.is_empty() || status.alarm.is_some();
    if broken && !args.stop {
        return Err(Reported.into());
    }
    Ok(())
}

fn report(status: &VerifyStatus) -> anyhow::Result<()> {
    let state = match status.state {
        VerifyState::Never => "no verification was asked for yet",
        VerifyState::Running => "running",
        VerifyState::Waiting => "what was missing is looked for once more",
        VerifyState::Finished => "finished",
        VerifyState::Stopped => "stopped",
    };
    output::line(format_args!(
        "{state}: {} blobs verified, {}",
        status.verified,
        ByteSize(status.bytes)
    ))?;
    for digest in &status.corrupt {
        output::line(format_args!("corrupt  {digest}  (out of service: push it again)"))?;
    }
    for digest in &status.missing {
        output::line(format_args!("missing  {digest}  (out of service: push it again)"))?;
    }
    for digest in &status.suspects {
        output::line(format_args!(
            "suspect  {digest}  (not there; looked for again later)"
        ))?;
    }
    if status.unreadable > 0 {
        output::line(format_args!(
            "{} blobs could not be read: see the server's log",
            status.unreadable
        ))?;
    }
    if let Some(alarm) = &status.alarm {
        output::line(alarm)?;
    }
    Ok(())
}
