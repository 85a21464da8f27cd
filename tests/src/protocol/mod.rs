//! The distribution API over raw HTTP: what clients rely on and the conformance suite does not cover, and what a
//! server must survive.

mod access;
mod bounds;
mod content;
mod listing;
mod malformed;
mod outside;
mod uploads;
