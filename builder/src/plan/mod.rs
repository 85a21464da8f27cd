//! From the AST and facts about bases to a [`Plan`].

mod types;

pub use types::*;
