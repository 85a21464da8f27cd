//! Networks of steps.

pub(crate) mod link;
mod netlink;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::RuntimeError;

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("{operation}")]
    Operation { operation: &'static str, source: io::Error },
}

#[derive(Clone, Debug, Default)]
pub struct NetworkHandle {}

impl NetworkHandle {
    pub fn none() -> Self {
        Self {}
    }

    pub(crate) fn lease(&self) -> Result<Lease, RuntimeError> {
        Err(RuntimeError::NoBridge)
    }
}

#[derive(Debug)]
pub(crate) struct Lease {
    namespace: OwnedFd,
}

impl Lease {
    pub(crate) fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}
