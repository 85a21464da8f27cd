//! RUN: the command in namespaces of its own, on the step's tree.

use std::os::fd::AsFd;
use std::sync::Arc;

use runtime::{Exit, Spec, Stdio};
use rustix::pipe::PipeFlags;

use super::Build;
use super::copy::Owner;
use super::error::{BuildError, StepRef};
use super::output::Output;
use super::step::make_directory;
use crate::event::Stream;
use crate::plan::{Network, Run, SCRIPT_DIRECTORY};
use crate::snapshot::Tree;

const SCRIPT_MODE: u32 = 0o755;

impl Build<'_> {
    pub(super) async fn run(
        &self,
        run: &Run,
        tree: Tree,
        epoch: i64,
        at: &StepRef,
    ) -> Result<(), BuildError> {
        let user =
            runtime::user::resolve_user(tree.as_fd(), &run.user).map_err(|error| BuildError::Step {
                at: at.boxed(),
                reason: error.to_string(),
            })?;
        // Like Docker: a working directory that a base names but does not have is made.
        make_directory(&tree, &run.cwd, Owner { uid: 0, gid: 0 }).map_err(|source| BuildError::StepIo {
            at: at.boxed(),
            action: format!("make the working directory {}", run.cwd),
            source,
        })?;
        let mut env = self.run_env(run, epoch);
        env.extend(run.proxies.iter().cloned());
        let mut spec = Spec::run_step(run.args.clone(), env, run.cwd.clone(), user);
        spec.network = match run.network {
            Network::Default => runtime::Network::Bridge,
            // The planner refuses the host's.
            Network::None | Network::Host => runtime::Network::None,
        };
        let script = self.script(run, at)?;
        if let (Some(script), Some(path)) = (&script, run.args.last()) {
            spec.mounts
                .push(runtime::Mount::bind(script.path(), path.clone(), true));
        }
        let _slot = self
            .node
            .run_slots
            .acquire()
            .await
            .map_err(|_| BuildError::TaskDied)?;
        self.check_stopped()?;
        let output = Output::new(Arc::clone(&self.services.events), at.step);
        let exit = self.run_spec(spec, tree, &output, at).await?;
        self.check_stopped()?;
        if exit.success() {
            return Ok(());
        }
        Err(BuildError::Run {
            at: at.boxed(),
            command: run.args.join(" "),
            exit: exit.to_string(),
            exit_code: exit.code(),
            last_output: output.tail(),
        })
    }

    /// Starts the step, passes its output on, and waits for its end; a build that stops kills it.
    async fn run_spec(
        &self,
        mut spec: Spec,
        tree: Tree,
        output: &Output,
        at: &StepRef,
    ) -> Result<Exit, BuildError> {
        let steps = self.node.steps().map_err(|source| BuildError::Runtime {
            at: at.boxed(),
            source,
        })?;
        spec.mounts.extend(steps.files.mounts());
        let io_error = |source: rustix::io::Errno| BuildError::StepIo {
            at: at.boxed(),
            action: "make a pipe".to_owned(),
            source: source.into(),
        };
        let (stdout_read, stdout) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(io_error)?;
        let (stderr_read, stderr) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(io_error)?;
        let started = tokio::task::spawn_blocking(move || {
            steps
                .zygote
                .start(&spec, tree.as_fd(), Stdio { stdout, stderr }, &steps.network)
        });
        let step = match started.await.map_err(|_| BuildError::TaskDied)? {
            Ok(step) => Arc::new(step),
            Err(source) => return Err(self.runtime_error(source, at)),
        };
        // A build that is dropped must not leave its step running.
        let _kill = KillOnDrop(Arc::clone(&step));
        let waiting = Arc::clone(&step);
        let mut wait = tokio::task::spawn_blocking(move || waiting.wait());
        let ended = async {
            tokio::select! {
                exit = &mut wait => exit,
                () = self.stop.cancelled() => {
                    step.kill();
                    wait.await
                }
            }
        };
        let (exit, out, err) = futures::join!(
            ended,
            output.read(stdout_read, Stream::Stdout),
            output.read(stderr_read, Stream::Stderr),
        );
        out.and(err).map_err(|source| BuildError::StepIo {
            at: at.boxed(),
            action: "read its output".to_owned(),
            source,
        })?;
        exit.map_err(|_| BuildError::TaskDied)?
            .map_err(|source| self.runtime_error(source, at))
    }

    fn runtime_error(&self, source: runtime::RuntimeError, at: &StepRef) -> BuildError {
        use runtime::RuntimeError::{Network, ZygoteGone};
        use runtime::network::NetworkError::{Operation, ThreadGone};
        // Whatever took the bridge away, such as a firewall's restart: the next step gets a new one.
        if matches!(source, ZygoteGone | Network(Operation { .. } | ThreadGone)) {
            self.node.drop_steps();
        }
        BuildError::Runtime {
            at: at.boxed(),
            source,
        }
    }

    /// A heredoc that is a program of its own becomes a file, which the step sees below [`SCRIPT_DIRECTORY`].
    fn script(&self, run: &Run, at: &StepRef) -> Result<Option<Script>, BuildError> {
        let Some(content) = &run.script else {
            return Ok(None);
        };
        let failed = |source| BuildError::StepIo {
            at: at.boxed(),
            action: format!("write the script for {SCRIPT_DIRECTORY}"),
            source,
        };
        Script::write(self.node.snapshots.dir(), content)
            .map(Some)
            .map_err(failed)
    }
}

/// A file that is gone when the step is.
struct Script(std::path::PathBuf);

impl Script {
    fn write(state: &std::path::Path, content: &[u8]) -> std::io::Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let script = Self(state.join(format!("script-{number}")));
        std::fs::write(&script.0, content)?;
        std::fs::set_permissions(&script.0, std::fs::Permissions::from_mode(SCRIPT_MODE))?;
        Ok(script)
    }

    fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // It is overwritten by a later step if it stays.
        let _ = std::fs::remove_file(&self.0);
    }
}

struct KillOnDrop(Arc<runtime::Step>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill();
    }
}
