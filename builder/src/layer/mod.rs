//! From a step's upper directory to a layer in the registry: walk, tar, hash, compress, upload, in one pass.

mod compare;
mod compress;
mod differ;
mod error;
mod pipeline;
mod sparse;
mod tar;
mod time;

pub use compress::Compressors;
pub use differ::Diff;
pub use error::LayerError;
pub use pipeline::{ChunkWriter, Layer, upload};
pub use time::{ChainTimes, EPOCH_FLOOR, LayerTimes, base_epoch, layer_time, rfc3339};

/// The version of everything that decides a layer's and a configuration's bytes: entries, tar, gzip, times. Part of
/// every cache key. A change of any golden digest in this crate is a new version.
pub const FORMAT: u32 = 1;
