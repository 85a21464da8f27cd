//! Commands for whoever runs a server.

mod collection;
mod rebuild;
mod verify;

pub(crate) use collection::{gc, trash, undelete};
pub(crate) use rebuild::rebuild;
pub(crate) use verify::verify;
