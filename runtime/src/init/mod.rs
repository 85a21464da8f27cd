//! The child: from a fresh clone to the command, in steps that each name their error.
//!
//! The order matters:
//!
//! 1. Die with the zygote; new session and keyring; enter the cgroup, then make the cgroup namespace, which
//!    shows the group the process is in at that moment; enter the network.
//! 2. Attach the root; /proc, /sys, /dev and the mounts of the specification, each opened inside the root as a
//!    descriptor; masked and read-only paths last, over what came before.
//! 3. Pivot: from here on no path leads out of the root.
//! 4. Standard streams, limits; close every other descriptor before the working directory is entered, so that
//!    it can't be one of them (CVE-2024-21626).
//! 5. System call filter (needs CAP_SYS_ADMIN), user and capabilities, signals, execute.

mod command;
mod devices;
pub(crate) mod filesystem;
mod identity;
mod root;
mod seccomp;

use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::AssertUnwindSafe;

use nix::sched::CloneFlags;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{DumpableBehavior, Signal};
use serde::{Deserialize, Serialize};

pub(crate) use root::open_bind;

use crate::network::link;
use crate::{Exit, Seccomp, Spec, sys};

/// What a child starts with.
pub(crate) struct Inputs {
    pub(crate) spec: Spec,
    pub(crate) rootfs: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    pub(crate) cgroup_v1: Vec<OwnedFd>,
    pub(crate) network: Option<OwnedFd>,
    pub(crate) binds: Vec<OwnedFd>,
    pub(crate) show_cgroup_v2: bool,
    /// Closed by a successful execve.
    pub(crate) report: OwnedFd,
}

/// The set-up step that failed, on its way to the worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SetupError {
    pub(crate) step: String,
    pub(crate) errno: i32,
    pub(crate) detail: String,
}

/// Names the set-up step, and what it was about, of an error.
trait Named<T> {
    fn named(self, step: &str, detail: impl Into<String>) -> Result<T, SetupError>;
}

impl<T, E: Into<io::Error>> Named<T> for Result<T, E> {
    fn named(self, step: &str, detail: impl Into<String>) -> Result<T, SetupError> {
        self.map_err(|error| {
            let error: io::Error = error.into();
            let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
            SetupError {
                step: step.to_owned(),
                errno,
                detail: detail.into(),
            }
        })
    }
}

/// Becomes the command, or reports why not and leaves.
pub(crate) fn run(inputs: Inputs) -> ! {
    // Not dropped by an unwinding error: its number is what the worker's answer depends on.
    let report = ManuallyDrop::new(inputs.report);
    let inputs = Prepared {
        spec: inputs.spec,
        rootfs: inputs.rootfs,
        streams: [inputs.stdout, inputs.stderr],
        cgroup_v1: inputs.cgroup_v1,
        network: inputs.network,
        binds: inputs.binds,
        show_cgroup_v2: inputs.show_cgroup_v2,
    };
    // A panic must not unwind into the copy of the zygote's loop.
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| set_up(inputs, &report)));
    let error = match result {
        Ok(Err(error)) => error,
        Ok(Ok(never)) => match never {},
        Err(_) => SetupError {
            step: "set up the process".into(),
            errno: libc::EFAULT,
            detail: "panic".into(),
        },
    };
    if let Ok(text) = serde_json::to_vec(&error) {
        // Nobody is left to tell if this fails.
        let _ = rustix::io::write(&*report, &text);
    }
    let SetupError { step, errno, detail } = error;
    sys::exit(Exit::Setup { step, errno, detail }.code())
}

struct Prepared {
    spec: Spec,
    rootfs: OwnedFd,
    streams: [OwnedFd; 2],
    cgroup_v1: Vec<OwnedFd>,
    network: Option<OwnedFd>,
    binds: Vec<OwnedFd>,
    show_cgroup_v2: bool,
}

fn set_up(inputs: Prepared, report: &OwnedFd) -> Result<std::convert::Infallible, SetupError> {
    let Prepared {
        spec,
        rootfs,
        streams,
        cgroup_v1,
        network,
        binds,
        show_cgroup_v2,
    } = inputs;
    die_with_zygote(report)?;
    rustix::process::setsid().named("start a session", "setsid")?;
    // Kernels without key retention, and quotas, refuse this; the host's keys are then masked by /proc/keys alone.
    let _ = sys::join_new_session_keyring();
    enter_cgroup(cgroup_v1)?;
    enter_network(network)?;
    nix::unistd::sethostname(&spec.hostname).named("set the host name", &spec.hostname)?;

    root::build(&spec, &rootfs, binds, show_cgroup_v2)?;
    root::pivot(rootfs)?;

    let command = command::prepare(&spec)?;
    attach_streams(&spec, streams)?;
    identity::set_limits(&spec)?;
    sys::close_all_but(3, report.as_raw_fd()).named("close descriptors", "close_range")?;
    if spec.seccomp == Seccomp::Default {
        // Only with no_new_privs could this be done after dropping rights, and then sudo wouldn't work.
        seccomp::load().named("filter system calls", "seccomp")?;
    }
    enter_directory(&spec, || identity::assume(&spec))?;
    sys::reset_signals();
    // A change of user clears it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .named("die with the zygote", "PR_SET_PDEATHSIG")?;
    command.execute()
}

fn die_with_zygote(report: &OwnedFd) -> Result<(), SetupError> {
    const STEP: &str = "die with the zygote";
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).named(STEP, "PR_SET_PDEATHSIG")?;
    // It may have died before: getppid is 0 in a new process namespace, but nobody reads the report then.
    let mut polled = [PollFd::new(report, PollFlags::empty())];
    rustix::event::poll(&mut polled, Some(&rustix::event::Timespec::default())).named(STEP, "poll")?;
    if polled[0].revents().contains(PollFlags::ERR) {
        return Err(rustix::io::Errno::PIPE).named(STEP, "it is gone already");
    }
    // Until it executes the command this process is a copy of ours.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).named(STEP, "PR_SET_DUMPABLE")
}

fn enter_cgroup(procs: Vec<OwnedFd>) -> Result<(), SetupError> {
    for file in procs {
        // 0 is the process that writes.
        std::fs::File::from(file)
            .write_all(b"0")
            .named("enter the control group", "cgroup.procs")?;
    }
    nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP).named("make a cgroup namespace", "unshare")
}

fn enter_network(network: Option<OwnedFd>) -> Result<(), SetupError> {
    match network {
        Some(namespace) => nix::sched::setns(&namespace, CloneFlags::CLONE_NEWNET)
            .named("enter the network namespace", "setns"),
        None => link::raise_loopback().named("raise the loopback device", "lo"),
    }
}

/// /dev/null, and the worker's pipes, which the user must be able to open again through /dev/stdout.
fn attach_streams(spec: &Spec, streams: [OwnedFd; 2]) -> Result<(), SetupError> {
    const STEP: &str = "attach the standard streams";
    for stream in &streams {
        let stat = rustix::fs::fstat(stream).named(STEP, "fstat")?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Fifo {
            let owner = Some(rustix::fs::Uid::from_raw(spec.user.uid));
            rustix::fs::fchown(stream, owner, None).named(STEP, "fchown")?;
        }
    }
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let null = rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty()).named(STEP, "/dev/null")?;
    let [stdout, stderr] = streams;
    rustix::stdio::dup2_stdin(&null).named(STEP, "stdin")?;
    rustix::stdio::dup2_stdout(&stdout).named(STEP, "stdout")?;
    rustix::stdio::dup2_stderr(&stderr).named(STEP, "stderr")
}

/// Enters the working directory as root, or, where root may not (a network file system), as the user.
fn enter_directory(
    spec: &Spec,
    assume_identity: impl FnOnce() -> Result<(), SetupError>,
) -> Result<(), SetupError> {
    const STEP: &str = "enter the working directory";
    let enter = || {
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        // /proc/self/fd/N and /proc/1/root are no places to work in.
        let resolve = rustix::fs::ResolveFlags::NO_MAGICLINKS;
        let none = rustix::fs::Mode::empty();
        let directory = rustix::fs::openat2(rustix::fs::CWD, &spec.cwd, flags, none, resolve)?;
        rustix::process::fchdir(&directory)
    };
    match enter() {
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {
            assume_identity()?;
            enter().named(STEP, &spec.cwd)?;
        }
        result => {
            result.named(STEP, &spec.cwd)?;
            assume_identity()?;
        }
    }
    // The kernel says "(unreachable)/…" for a directory outside of the root.
    let reached = rustix::process::getcwd(Vec::new()).named(STEP, &spec.cwd)?;
    if !reached.as_bytes().starts_with(b"/") {
        return Err(rustix::io::Errno::XDEV).named(STEP, &spec.cwd);
    }
    Ok(())
}
