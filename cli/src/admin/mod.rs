//! Commands for whoever runs a server.

mod collection;
mod rebuild;

pub(crate) use collection::{gc, trash, undelete};
pub(crate) use rebuild::rebuild;
