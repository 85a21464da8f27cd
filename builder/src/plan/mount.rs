//! RUN --mount.
#[derive(Clone, Debug)]
pub struct Mount;
