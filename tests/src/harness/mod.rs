//! What the tests stand on: the server under test, the real peers, images, and HTTP as raw as a test wants it.

pub(crate) mod engine;
pub(crate) mod http;
pub(crate) mod image;
pub(crate) mod paths;
pub(crate) mod server;
pub(crate) mod tool;
