//! Whole builds on this machine's kernel, as root, against a registry in memory.

mod cache;
mod copy;
mod fixture;
mod memory;
mod stories;
