//! Starts the worker process and starts it again when it dies.
//!
//! The worker asks the kernel to be killed when its parent *thread* ends, so one thread starts it and lives as long as
//! the server. `std::process` uses posix_spawn here: nothing is forked from this threaded process.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal};
use tokio::sync::mpsc::UnboundedSender;

use crate::config::WorkerCommand;

/// How often the thread looks whether the worker has ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The first pause before a worker that died is started again; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A worker that lived this long was well; the pauses begin anew.
const WELL_AFTER: Duration = Duration::from_secs(60);
/// How long a worker may take to stop before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// The kernel shall kill a builder before the registry (0 is neutral, 1000 goes first).
const OOM_SCORE_ADJ: &str = "500";
/// What the worker takes over from the server's environment. All else may hold secrets.
const ENV_KEPT: [&str; 6] = ["PATH", "HOME", "LANG", "TMPDIR", "RUST_LOG", "RUST_BACKTRACE"];

/// What the worker is told at its start.
pub(super) struct WorkerSetup {
    pub(super) command: WorkerCommand,
    pub(super) socket: PathBuf,
    pub(super) token: String,
    pub(super) state_dir: PathBuf,
}

/// What became of a worker.
#[derive(Debug)]
pub(super) enum WorkerNews {
    /// It could not be started.
    NotStarted(io::Error),
    /// It ended although nobody asked for it.
    Died { how: String, lived: Duration },
}

/// The worker's keeper. Nothing runs before [`Supervisor::start`].
pub(super) struct Supervisor {
    setup: Mutex<Option<(WorkerSetup, UnboundedSender<WorkerNews>)>>,
    running: Mutex<Option<(Sender<Stop>, JoinHandle<()>)>>,
}

struct Stop;

impl Supervisor {
    pub(super) fn new(setup: WorkerSetup, news: UnboundedSender<WorkerNews>) -> Self {
        Self {
            setup: Mutex::new(Some((setup, news))),
            running: Mutex::new(None),
        }
    }

    /// Starts the worker at the first call.
    pub(super) fn start(&self) -> io::Result<()> {
        let mut running = self.running.lock();
        let Some((setup, news)) = self.setup.lock().take() else {
            return Ok(());
        };
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("worker-keeper".to_owned())
            .spawn(move || keep(&setup, &news, &stopped))?;
        *running = Some((stop, thread));
        Ok(())
    }

    /// Stops the worker and waits until it has ended. Blocks.
    pub(super) fn stop(&self) {
        self.setup.lock().take();
        let Some((stop, thread)) = self.running.lock().take() else {
            return;
        };
        // The thread may have ended by itself.
        let _ = stop.send(Stop);
        if thread.join().is_err() {
            tracing::error!("the thread that keeps the worker panicked");
        }
    }
}

fn keep(setup: &WorkerSetup, news: &UnboundedSender<WorkerNews>, stop: &Receiver<Stop>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        match spawn(setup) {
            Ok(child) => match watch(child, stop) {
                Some(status) => {
                    let lived = started.elapsed();
                    if lived >= WELL_AFTER {
                        pause = FIRST_PAUSE;
                    }
                    let how = describe(status);
                    tracing::error!(how, lived_seconds = lived.as_secs(), "the build worker ended");
                    let _ = news.send(WorkerNews::Died { how, lived });
                }
                None => return,
            },
            Err(error) => {
                tracing::error!(program = %setup.command.program.display(), %error, "cannot start the build worker");
                let _ = news.send(WorkerNews::NotStarted(error));
            }
        }
        match stop.recv_timeout(pause) {
            Err(RecvTimeoutError::Timeout) => pause = (pause * 2).min(PAUSE_MAX),
            Ok(Stop) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn spawn(setup: &WorkerSetup) -> io::Result<Child> {
    use client::api::{WORKER_SOCKET_ENV, WORKER_STATE_ENV, WORKER_TOKEN_ENV};
    // Setuid programs of images lie in there: nobody else may enter.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&setup.state_dir)?;
    let mut command = Command::new(&setup.command.program);
    command
        .args(&setup.command.args)
        .env_clear()
        .envs(
            ENV_KEPT
                .iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?))),
        )
        .envs(&setup.command.env)
        .env(WORKER_SOCKET_ENV, &setup.socket)
        .env(WORKER_TOKEN_ENV, &setup.token)
        .env(WORKER_STATE_ENV, &setup.state_dir)
        .stdin(Stdio::null())
        .process_group(0);
    let child = command.spawn()?;
    let oom = format!("/proc/{}/oom_score_adj", child.id());
    if let Err(error) = std::fs::write(&oom, OOM_SCORE_ADJ) {
        tracing::warn!(%error, "the worker's oom score stays as the server's");
    }
    tracing::info!(pid = child.id(), "the build worker runs");
    Ok(child)
}

/// Waits for the worker's end; `None`: it was stopped on demand.
fn watch(mut child: Child, stop: &Receiver<Stop>) -> Option<ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, "cannot wait for the build worker");
                return Some(ExitStatus::from_raw(0));
            }
        }
        match stop.recv_timeout(LOOK_EVERY) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Stop) | Err(RecvTimeoutError::Disconnected) => {
                end(child);
                return None;
            }
        }
    }
}

/// Asks the worker's process group to stop, then kills it.
fn end(mut child: Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let signal = |signal| group.map(|group| rustix::process::kill_process_group(group, signal));
    signal(Signal::TERM);
    let deadline = Instant::now() + STOP_GRACE;
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            break;
        }
        std::thread::sleep(LOOK_EVERY / 5);
    }
    // What is left of the group, the worker itself included.
    signal(Signal::KILL);
    if let Err(error) = child.wait() {
        tracing::warn!(%error, "cannot wait for the build worker");
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(9), _) => "it was killed (signal 9), perhaps for want of memory".to_owned(),
        (Some(signal), _) => format!("it was ended by signal {signal}"),
        (None, Some(code)) => format!("it exited with code {code}"),
        (None, None) => "it ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(script: &str, dir: &std::path::Path) -> WorkerSetup {
        WorkerSetup {
            command: WorkerCommand {
                program: "/bin/sh".into(),
                args: vec!["-c".into(), script.into()],
                env: [("EXTRA".into(), "x".into())].into(),
            },
            socket: "/run/api.sock".into(),
            token: "secret".to_owned(),
            state_dir: dir.join("state"),
        }
    }

    #[tokio::test]
    async fn a_worker_that_dies_is_told_and_started_again() {
        let (sender, mut news) = tokio::sync::mpsc::unbounded_channel();
        let dir = tempfile::tempdir().unwrap();
        let script = r#"[ -d "$LAYERYARD_WORKER_STATE_DIR" ] || exit 8
            [ "$LAYERYARD_WORKER_TOKEN $EXTRA $CARGO_PKG_NAME" = "secret x " ] || exit 9
            exit 7"#;
        let supervisor = Supervisor::new(setup(script, dir.path()), sender);
        supervisor.start().unwrap();
        for _ in 0..2 {
            match news.recv().await.unwrap() {
                WorkerNews::Died { how, .. } => assert!(how.contains("code 7"), "{how}"),
                other => panic!("{other:?}"),
            }
        }
        tokio::task::spawn_blocking(move || supervisor.stop())
            .await
            .unwrap();
        assert!(news.recv().await.is_none(), "stopped for good");
    }

    #[tokio::test]
    async fn stopping_ends_the_whole_group() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let script = format!(
            "sleep 600 & echo $! > {0}.tmp; mv {0}.tmp {0}; wait",
            file.display()
        );
        let (sender, mut news) = tokio::sync::mpsc::unbounded_channel();
        let supervisor = Supervisor::new(setup(&script, dir.path()), sender);
        supervisor.start().unwrap();
        let child: i32 = loop {
            if let Ok(text) = std::fs::read_to_string(&file) {
                break text.trim().parse().unwrap();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        tokio::task::spawn_blocking(move || supervisor.stop())
            .await
            .unwrap();
        assert!(news.recv().await.is_none(), "an ordered end is no news");
        // A killed process takes a moment to die, and stays a zombie until its new parent waits.
        let is_dead = || {
            let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            state.is_empty() || state.contains(") Z ")
        };
        let dying = async {
            while !is_dead() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), dying)
            .await
            .expect("what the worker started lives on");
    }
}
