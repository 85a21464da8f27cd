//! Steps on this machine's kernel, as root: what a command gets, what it can't reach, and how it ends.

mod attacks;
mod fixture;
mod isolation;
mod network;
mod steps;
mod trees;
