//! The client against a peer that misbehaves on demand: what real registries do once a month, every time.

mod blobs;
mod script;
mod transport;
