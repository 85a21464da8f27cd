//! A registry's client: authentication, pull, push, resume, verify. Used by the mirror, `copy`, and the build worker.

pub mod api;
