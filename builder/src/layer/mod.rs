//! From a step's upper directory to a layer in the registry: walk, tar, hash, compress, upload, in one pass.

mod error;

pub use error::LayerError;
