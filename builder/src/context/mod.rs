//! The build context: which files belong to it, the patterns that name them, and its archive's way to disk.

pub mod ignore;
pub mod pattern;
mod unpack;

pub use unpack::{ContextError, unpack_tar};
