//! One container process: [`Spec`] in, [`Exit`] out.
//!
//! A worker calls [`Zygote::spawn`] once. The zygote is this program again, executed from a sealed copy of its
//! own file, with a single thread and one socket: so nothing ever forks from a threaded process, and what a
//! step could reach of us is a file that can't be written. [`Zygote::start`] hands it a specification and
//! descriptors (root file system, output pipes, network namespace); it clones a child into new namespaces, which
//! runs the numbered set-up steps of `init` and then becomes the command. [`Step::wait`] returns when the
//! whole process tree is gone.
//!
//! The interface is blocking; it knows nothing of images, registries or Dockerfiles.
#![deny(unsafe_code)]

mod cgroup;
mod error;
mod exit;
mod init;
mod isolate;
pub mod network;
mod probe;
mod spec;
mod step;
mod sys;
pub mod user;
mod zygote;

pub use error::RuntimeError;
pub use exit::Exit;
pub use isolate::{IsolateError, hide_directory};
pub use network::NetworkHandle;
pub use probe::{MissingPermission, MissingPermissions, probe};
pub use spec::{
    Capability, Cgroup, DEFAULT_CAPABILITIES, DEFAULT_HOSTNAME, DEFAULT_PATH, Mount, MountKind, Network,
    Rlimit, RlimitKind, Seccomp, Spec, User,
};
pub use step::{Stdio, Step};
pub use zygote::{Zygote, zygote_main};
