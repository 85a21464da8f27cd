//! The zygote, seen from the worker: started once, asked for steps.

mod home;
mod server;
mod wire;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio as ProcessStdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags};

pub(crate) use home::{DEVICES, EMPTY, ROOT};
pub use server::zygote_main;
use wire::{Attachments, Greeting, Reply, Request};

use crate::cgroup::{self, Leaf};
use crate::network::{Lease, NetworkHandle};
use crate::spec::{MountKind, Network, Spec};
use crate::step::{Stdio, Step, StepParts};
use crate::{Exit, RuntimeError, init};

const OWN_EXECUTABLE: &str = "/proc/self/exe";

/// A running zygote. Clones share it; it ends, with every step that runs, when the last is dropped.
#[derive(Clone, Debug)]
pub struct Zygote {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    socket: OwnedFd,
    process: std::sync::Mutex<Child>,
}

impl Zygote {
    /// Starts this program again as `PROGRAM zygote`, where its `main` has to call [`zygote_main`].
    pub fn spawn() -> Result<Self, RuntimeError> {
        Self::spawn_from(Path::new(OWN_EXECUTABLE))
    }

    /// As [`Zygote::spawn`] with another program, whose `main` does the same.
    pub fn spawn_from(executable: &Path) -> Result<Self, RuntimeError> {
        let sealed = seal(executable).map_err(|source| RuntimeError::SealExecutable {
            path: executable.to_owned(),
            source,
        })?;
        let spawn = |source| RuntimeError::SpawnZygote { source };
        let (ours, theirs) = wire::socket_pair().map_err(spawn)?;
        // The program is opened by the child before its descriptors are closed.
        let mut command = Command::new(format!("/proc/self/fd/{}", sealed.as_raw_fd()));
        command
            .arg0("layeryard")
            .arg("zygote")
            .env_clear()
            .stdin(theirs)
            .stdout(ProcessStdio::null());
        let process = spawn_patiently(&mut command).map_err(spawn)?;
        // It holds our end of the socket's other side.
        drop(command);
        let zygote = Self {
            inner: Arc::new(Inner {
                socket: ours,
                process: process.into(),
            }),
        };
        match wire::receive_message(zygote.inner.socket.as_fd()).map_err(socket_error)? {
            None => Err(RuntimeError::ZygoteGone),
            Some((Greeting::Failed { message }, _)) => Err(RuntimeError::ZygoteSetup { message }),
            Some((Greeting::Ready, _)) => Ok(zygote),
        }
    }

    /// Starts a step on `rootfs`, a detached mount that becomes its `/`.
    pub fn start(
        &self,
        spec: &Spec,
        rootfs: BorrowedFd<'_>,
        stdio: Stdio,
        network: &NetworkHandle,
    ) -> Result<Step, RuntimeError> {
        let binds = open_binds(spec)?;
        let leaf = spec.cgroup.as_ref().map(Leaf::create).transpose()?.flatten();
        let mut lease = match spec.network {
            Network::None => None,
            Network::Bridge => Some(network.lease()?),
        };
        let procs = leaf.as_ref().map(Leaf::v1_procs).unwrap_or_default();
        let v2 = leaf.as_ref().and_then(Leaf::v2_directory);
        let request = Request {
            spec: spec.clone(),
            cgroup_v2: v2.is_some(),
            cgroup_v1: procs.len(),
            network: lease.is_some(),
            binds: binds.len(),
            show_cgroup_v2: cgroup::hierarchies().unified_only,
        };
        let request = serde_json::to_vec(&request).map_err(|source| RuntimeError::EncodeSpec { source })?;
        let (ours, theirs) = wire::socket_pair().map_err(socket_error)?;
        let attachments = Attachments {
            control: theirs.as_fd(),
            rootfs,
            stdout: stdio.stdout.as_fd(),
            stderr: stdio.stderr.as_fd(),
            cgroup_v2: v2,
            cgroup_v1: procs,
            network: lease.as_ref().and_then(|lease| lease.namespace()),
            binds: binds.iter().map(AsFd::as_fd).collect(),
        };
        wire::send_request(self.inner.socket.as_fd(), &request, &attachments).map_err(socket_error)?;
        drop(attachments);
        drop((theirs, binds, stdio));
        let (pid, pidfd) = started(ours.as_fd())?;
        // The child holds it as its own by now.
        lease.iter_mut().for_each(Lease::entered);
        Ok(Step::new(StepParts {
            pid,
            pidfd,
            control: ours,
            leaf,
            lease,
        }))
    }

    /// Process id of the zygote, for tests and supervision.
    pub fn pid(&self) -> u32 {
        self.inner
            .process
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .id()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The zygote leaves when its socket has no other end, kills what runs, and is reaped here.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        let process = self
            .process
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = process.wait();
    }
}

/// A program that another thread starts at this moment may hold, until it executes, the descriptor our copy was
/// written with.
fn spawn_patiently(command: &mut Command) -> io::Result<Child> {
    const ATTEMPTS: u32 = 100;
    const INTERVAL: Duration = Duration::from_millis(2);
    for _ in 0..ATTEMPTS {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => std::thread::sleep(INTERVAL),
            result => return result,
        }
    }
    command.spawn()
}

fn socket_error(source: io::Error) -> RuntimeError {
    match source.raw_os_error() {
        Some(libc::EPIPE | libc::ECONNRESET) => RuntimeError::ZygoteGone,
        _ => RuntimeError::ZygoteSocket { source },
    }
}

fn started(control: BorrowedFd<'_>) -> Result<(i32, OwnedFd), RuntimeError> {
    let Some((reply, fds)) = wire::receive_message(control).map_err(socket_error)? else {
        return Err(RuntimeError::ZygoteGone);
    };
    match (reply, fds.into_iter().next()) {
        (Reply::Started { pid }, Some(pidfd)) => Ok((pid, pidfd)),
        (Reply::NotStarted { message }, _) => Err(RuntimeError::Clone { message }),
        _ => Err(RuntimeError::ZygoteGone),
    }
}

/// How a step ended; blocks until it has.
pub(crate) fn ended(control: BorrowedFd<'_>) -> Result<Exit, RuntimeError> {
    match wire::receive_message(control).map_err(socket_error)? {
        Some((Reply::Ended(exit), _)) => Ok(exit),
        _ => Err(RuntimeError::ZygoteGone),
    }
}

/// A copy of the executable that nobody can write, whatever finds a way to its file.
///
/// The copy is shared by all zygotes of this process when it is its own program.
fn seal(executable: &Path) -> io::Result<Arc<OwnedFd>> {
    static OWN: OnceLock<Arc<OwnedFd>> = OnceLock::new();
    if executable != Path::new(OWN_EXECUTABLE) {
        return copy_and_seal(executable).map(Arc::new);
    }
    if let Some(sealed) = OWN.get() {
        return Ok(sealed.clone());
    }
    let sealed = Arc::new(copy_and_seal(executable)?);
    Ok(OWN.get_or_init(|| sealed).clone())
}

fn copy_and_seal(executable: &Path) -> io::Result<OwnedFd> {
    let name = "layeryard";
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 don't know MFD_EXEC, and make memory files executable anyway.
    let memory = rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create(name, flags))?;
    let mut copy = File::from(memory);
    io::copy(&mut File::open(executable)?, &mut copy)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    // Executing a file that this process holds open for writing is refused.
    Ok(rustix::fs::open(
        format!("/proc/self/fd/{}", copy.as_raw_fd()),
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?)
}

fn open_binds(spec: &Spec) -> Result<Vec<OwnedFd>, RuntimeError> {
    let binds = spec.mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Bind { source, read_only } => Some((source, *read_only)),
        MountKind::Tmpfs { .. } => None,
    });
    binds
        .map(|(path, read_only)| {
            init::open_bind(path, read_only).map_err(|source| RuntimeError::MountSource {
                path: path.clone(),
                source,
            })
        })
        .collect()
}
