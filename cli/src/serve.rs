//! `layeryard serve`: the registry and the worker that it starts for builds.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Context as _;
use registry::{LogConfig, LogFormat, ServeError, Server, WorkerCommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::ServeArgs;
use crate::failure::Usage;
use crate::traces::Traces;
use crate::{config, logging, output};

/// Threads that wait for disks, password hashes and names at once. Each keeps what it allocated last, so that as many as
/// there are transfers would take more memory than the transfers.
const BLOCKING_THREADS_MAX: usize = 64;

/// The worker's log settings, in its environment.
pub(crate) const LOG_FORMAT_ENV: &str = "LAYERYARD_LOG_FORMAT";
pub(crate) const LOG_LEVEL_ENV: &str = "LAYERYARD_LOG_LEVEL";

pub(crate) fn run(args: ServeArgs) -> anyhow::Result<()> {
    let mut config = config::resolve(args)?;
    config.worker = Some(worker_command(&config.log));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    let traces = Traces::start(&config.traces, runtime.handle())?;
    let log = logging::start(&config.log, traces.as_ref())?;
    raise_file_limit();
    let served = runtime.block_on(serve(config));
    // The last spans are sent from the runtime, and what fails is still logged.
    if let Some(traces) = traces {
        traces.stop();
    }
    drop(runtime);
    drop(log);
    served
}

/// A connection is a descriptor and a transfer another; the soft limit of most systems is 1024, for programs that use
/// select(2).
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

async fn serve(config: registry::Config) -> anyhow::Result<()> {
    // Installed before the ports are open, so that nobody who saw the server misses its clean stop.
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot handle SIGHUP")?;
    let (data_dir, format) = (config.data_dir.clone(), config.log.format);
    let server = match Server::start(config).await {
        Ok(server) => server,
        // A setting that is missing, as opposed to a machine that refuses.
        Err(error @ ServeError::Config(_)) => return Err(Usage(error.to_string()).into()),
        Err(error) => return Err(error).context("cannot start the server"),
    };
    match format {
        LogFormat::Text => banner(&server, &data_dir),
        // Who reads objects wants nothing else on standard error.
        LogFormat::Json => tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            addresses = urls(&server).join(" "),
            data_dir = %data_dir.display(),
            "serving"
        ),
    }
    let reload = server.reload();
    let stop = async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => reload.notify_one(),
            }
        }
        tracing::info!("stopping: running transfers are finished first");
    };
    server.run_until(stop).await.context("the server failed")
}

fn urls(server: &Server) -> Vec<String> {
    let scheme = if server.is_tls() { "https" } else { "http" };
    let addresses = server.addresses().iter();
    addresses.map(|address| format!("{scheme}://{address}")).collect()
}

fn banner(server: &Server, data_dir: &std::path::Path) {
    output::note(format_args!(
        "Layeryard {} serves on {}",
        env!("CARGO_PKG_VERSION"),
        urls(server).join(" and ")
    ));
    output::note(format_args!("Data is in {}", data_dir.display()));
    if let Some(address) = server
        .addresses()
        .iter()
        .find(|address| address.ip().is_loopback())
    {
        let host = format!("localhost:{}", address.port());
        output::note(format_args!(
            "Push to it: docker push {host}/NAME   Build on it: layeryard build -t NAME ."
        ));
    }
}

/// This program again. `/proc/self/exe` is the running file even after an upgrade has replaced it on disk.
fn worker_command(log: &LogConfig) -> WorkerCommand {
    let format = match log.format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    WorkerCommand {
        program: PathBuf::from("/proc/self/exe"),
        args: vec!["worker".into()],
        env: BTreeMap::from([
            (OsString::from(LOG_FORMAT_ENV), OsString::from(format)),
            (OsString::from(LOG_LEVEL_ENV), OsString::from(&log.level)),
        ]),
    }
}
