//! From the AST and facts about bases to a [`Plan`].

pub mod mount;
mod types;

pub use types::*;
