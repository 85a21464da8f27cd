//! The zygote process: clones steps, reaps them, and goes when its worker goes.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Signal, WaitId, WaitIdOptions};

use super::home;
use super::wire::{self, Greeting, Reply};
use crate::init::{self, Inputs, SetupError};
use crate::sys::{self, Cloned, SingleThreaded};
use crate::{Exit, Network};

/// Every namespace but the network's (see [`namespaces`]), the cgroup's (made by the child, once it is in its
/// cgroup) and the user's.
const NAMESPACES: libc::c_int =
    libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// Longest error a child may report.
const STATUS_BYTES_MAX: u64 = 8 << 10;

/// Serves one worker on the socket that is standard input; the worker starts it with [`super::Zygote::spawn`].
///
/// To be called before the program has made a thread.
pub fn zygote_main() -> ! {
    let code = match start() {
        Ok((process, socket)) => match serve(&process, &socket) {
            Ok(()) => 0,
            Err(_) => 1,
        },
        Err(_) => 1,
    };
    // Steps that still run die with this process (PR_SET_PDEATHSIG).
    sys::exit(code)
}

fn start() -> io::Result<(SingleThreaded, OwnedFd)> {
    // Standard input is overwritten in each step, so the socket gets a number of its own.
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let ready = SingleThreaded::check()
        .map_err(|error| format!("it has threads: {error}"))
        .and_then(|process| {
            // A Ctrl-C at the terminal is for the worker to interpret.
            let _ = rustix::process::setsid();
            home::enter().map_err(|error| error.to_string())?;
            Ok(process)
        });
    match ready {
        Ok(process) => {
            wire::send_message(socket.as_fd(), &Greeting::Ready, &[])?;
            Ok((process, socket))
        }
        Err(message) => {
            wire::send_message(socket.as_fd(), &Greeting::Failed { message }, &[])?;
            Err(io::Error::from_raw_os_error(libc::EPERM))
        }
    }
}

/// A step on this side.
struct Running {
    pidfd: OwnedFd,
    /// None once the worker has let go of the step.
    control: Option<OwnedFd>,
    /// Where the child reports why the command could not be started.
    status: OwnedFd,
}

fn serve(process: &SingleThreaded, socket: &OwnedFd) -> io::Result<()> {
    let mut running: Vec<Running> = Vec::new();
    loop {
        let (request, ended, abandoned) = wait_for_events(socket, &running)?;
        for index in abandoned {
            running[index].control = None;
            // The step may have ended already.
            let _ = rustix::process::pidfd_send_signal(&running[index].pidfd, Signal::KILL);
        }
        for index in ended.into_iter().rev() {
            finish(running.swap_remove(index))?;
        }
        if request {
            let Some((request, attachments)) = wire::receive_request(socket.as_fd())? else {
                break;
            };
            running.extend(begin(process, request, attachments)?);
        }
    }
    for step in &running {
        let _ = rustix::process::pidfd_send_signal(&step.pidfd, Signal::KILL);
    }
    Ok(())
}

/// Whether there is a request, which steps have ended, and which ones the worker has dropped; by index, in order.
fn wait_for_events(socket: &OwnedFd, running: &[Running]) -> io::Result<(bool, Vec<usize>, Vec<usize>)> {
    let mut polled = vec![PollFd::new(socket, PollFlags::IN)];
    for step in running {
        polled.push(PollFd::new(&step.pidfd, PollFlags::IN));
        // A dropped step's pidfd stands in for its socket, to keep two places for each.
        polled.push(
            step.control
                .as_ref()
                .map_or(PollFd::new(&step.pidfd, PollFlags::empty()), |control| {
                    PollFd::new(control, PollFlags::IN)
                }),
        );
    }
    match rustix::event::poll(&mut polled, None) {
        Err(rustix::io::Errno::INTR) => return Ok((false, Vec::new(), Vec::new())),
        result => result?,
    };
    let ready = |index: usize| !polled[index].revents().is_empty();
    let ended = (0..running.len()).filter(|index| ready(1 + 2 * index)).collect();
    let abandoned = (0..running.len())
        .filter(|index| running[*index].control.is_some() && ready(2 + 2 * index))
        .collect();
    Ok((ready(0), ended, abandoned))
}

/// Clones the child. None: it could not be cloned, which the worker has been told.
fn begin(
    process: &SingleThreaded,
    request: wire::Request,
    attachments: wire::Attachments<OwnedFd>,
) -> io::Result<Option<Running>> {
    let (status, report) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let wire::Attachments {
        control,
        rootfs,
        stdout,
        stderr,
        cgroup_v2,
        cgroup_v1,
        network,
        binds,
    } = attachments;
    let cloned = sys::clone_step(process, namespaces(&request), cgroup_v2.as_ref().map(AsFd::as_fd));
    match cloned {
        Ok(Cloned::Child) => {
            drop(status);
            let wire::Request {
                spec, show_cgroup_v2, ..
            } = request;
            init::run(Inputs {
                spec,
                rootfs,
                stdout,
                stderr,
                cgroup_v1,
                network,
                binds,
                show_cgroup_v2,
                report,
            })
        }
        Ok(Cloned::Parent { pid, pidfd }) => {
            let control = wire::send_message(control.as_fd(), &Reply::Started { pid }, &[pidfd.as_fd()])
                .is_ok()
                .then_some(control);
            if control.is_none() {
                let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
            }
            Ok(Some(Running {
                pidfd,
                control,
                status,
            }))
        }
        Err(error) => {
            // A worker that has gone meanwhile needs no answer.
            let _ = wire::send_message(
                control.as_fd(),
                &Reply::NotStarted {
                    message: error.to_string(),
                },
                &[],
            );
            Ok(None)
        }
    }
}

fn namespaces(request: &wire::Request) -> libc::c_int {
    match (request.spec.network, request.network) {
        // Entering one that is ready replaces making one; without it a step is never in the machine's own.
        (Network::Bridge, true) => NAMESPACES,
        _ => NAMESPACES | libc::CLONE_NEWNET,
    }
}

/// Reaps a process that has ended and tells the worker how.
fn finish(step: Running) -> io::Result<()> {
    let status = loop {
        match rustix::process::waitid(WaitId::PidFd(step.pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let exit = match (read_report(step.status), status) {
        (Some(SetupError { step, errno, detail }), _) => Exit::Setup { step, errno, detail },
        (None, Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Exited(code),
            (None, signal) => Exit::Signaled(signal.unwrap_or(libc::SIGKILL)),
        },
        (None, None) => Exit::Signaled(libc::SIGKILL),
    };
    if let Some(control) = step.control {
        // A worker that has gone meanwhile needs no answer.
        let _ = wire::send_message(control.as_fd(), &Reply::Ended(exit), &[]);
    }
    Ok(())
}

fn read_report(status: OwnedFd) -> Option<SetupError> {
    let mut bytes = Vec::new();
    std::fs::File::from(status)
        .take(STATUS_BYTES_MAX)
        .read_to_end(&mut bytes)
        .ok()?;
    serde_json::from_slice(&bytes).ok()
}
