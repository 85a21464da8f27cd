//! A running step, seen from the worker.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags};
use rustix::process::Signal;

use crate::cgroup::Leaf;
use crate::network::Lease;
use crate::{Exit, RuntimeError, zygote};

/// Where the command's output goes; closed on this side when the step has started.
#[derive(Debug)]
pub struct Stdio {
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// A process tree. Dropping it kills the tree and waits for its end.
#[derive(Debug)]
pub struct Step {
    pid: i32,
    pidfd: OwnedFd,
    control: OwnedFd,
    state: Mutex<State>,
    /// Beside the state, so that `kill` doesn't wait for `wait`.
    leaf: Mutex<Option<Leaf>>,
}

#[derive(Debug)]
struct State {
    exit: Option<Exit>,
    lease: Option<Lease>,
}

pub(crate) struct StepParts {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) control: OwnedFd,
    pub(crate) leaf: Option<Leaf>,
    pub(crate) lease: Option<Lease>,
}

impl Step {
    pub(crate) fn new(parts: StepParts) -> Self {
        let StepParts {
            pid,
            pidfd,
            control,
            leaf,
            lease,
        } = parts;
        let state = Mutex::new(State { exit: None, lease });
        Self {
            pid,
            pidfd,
            control,
            state,
            leaf: Mutex::new(leaf),
        }
    }

    /// Process id of the command in this process' namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Blocks until no process of the tree is left, and says how the command ended.
    ///
    /// The kernel lets the first process of a process namespace end only when all others have.
    pub fn wait(&self) -> Result<Exit, RuntimeError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(exit) = &state.exit {
            return Ok(exit.clone());
        }
        let ended = zygote::ended(self.control.as_fd());
        if ended.is_err() {
            // Without the zygote its children die too (PR_SET_PDEATHSIG); this makes sure of it.
            self.kill();
            self.wait_for_death();
        }
        let out_of_memory = self.remove_leaf();
        state.lease = None;
        let exit = match ended? {
            Exit::Signaled(libc::SIGKILL) if out_of_memory => Exit::OutOfMemory,
            exit => exit,
        };
        state.exit = Some(exit.clone());
        Ok(exit)
    }

    /// True: the group's memory limit had killed something.
    fn remove_leaf(&self) -> bool {
        let Some(leaf) = self.leaf.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return false;
        };
        let out_of_memory = leaf.ran_out_of_memory();
        leaf.remove();
        out_of_memory
    }

    fn wait_for_death(&self) {
        let mut polled = [PollFd::new(&self.pidfd, PollFlags::IN)];
        while let Err(rustix::io::Errno::INTR) = rustix::event::poll(&mut polled, None) {}
    }

    /// Kills the whole tree, from any thread. `wait` returns soon after.
    pub fn kill(&self) {
        // Killing the first process of a namespace kills the namespace; it may have ended already.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        if let Some(leaf) = &*self.leaf.lock().unwrap_or_else(PoisonError::into_inner) {
            leaf.kill();
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        let ended = self
            .state
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .exit
            .is_some();
        if !ended {
            self.kill();
            // The error would say that the zygote has gone, and its steps with it.
            let _ = self.wait();
        }
    }
}
