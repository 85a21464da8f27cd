//! The vocabulary of access: actions, patterns of repositories, the scopes of token servers, and the `Authorization`
//! header. All of it comes from callers, so that all of it is parsed here, apart from any I/O, where it can be fuzzed.

mod action;
mod authorization;
mod pattern;
mod scope;

pub use action::{Action, ActionError, Actions};
pub use authorization::{Authorization, AuthorizationError};
pub use pattern::{NameRange, PatternError, RepoPattern};
pub use scope::{ResourceScope, ScopeError};
