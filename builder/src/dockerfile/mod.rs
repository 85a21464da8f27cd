//! The Dockerfile language: text → logical lines → [`Dockerfile`] → typed [`Statement`]s.
//!
//! Architecture invariant: nothing here expands a variable on its own or fails on an instruction it does not know;
//! that is the planner's business. Checks never fail a parse.

pub mod ast;
pub mod checks;
mod diagnostic;
mod directives;
pub mod expand;
pub mod heredoc;
mod keyword;
pub mod lexer;
mod operators;
mod parser;
mod source;
pub mod statement;
pub mod substitute;
pub mod suggest;
pub mod words;

pub use ast::{Arguments, Dockerfile, Flag, Instruction, Pair, Word};
pub use checks::{Checks, Warning, check};
pub use diagnostic::{Diagnostic, Diagnostics, Place};
pub use directives::{Directive, Directives};
pub use keyword::Keyword;
pub use lexer::MAX_LINE_BYTES;
pub use parser::{parse, parse_source};
pub use source::{Source, Span};
pub use statement::{Statement, lower};

#[cfg(test)]
mod differential_tests;
#[cfg(test)]
mod robustness_tests;
