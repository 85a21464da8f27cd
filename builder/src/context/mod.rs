//! The build context: which files belong to it, and the patterns that name them.

pub mod ignore;
pub mod pattern;
