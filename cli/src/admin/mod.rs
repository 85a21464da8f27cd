//! Commands for whoever runs a server.

mod collection;

pub(crate) use collection::{gc, trash, undelete};
