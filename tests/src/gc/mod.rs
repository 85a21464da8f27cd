//! Garbage collection as its users meet it: what goes, what is told about it, and what comes back.

mod policies;
mod stories;
