//! The trees that steps run on: a store of directories in overlay form on this node, a driver that joins them, and
//! the applier that unpacks image layers into them.
//!
//! ```text
//! <state>/                0700: set-user-id programs lie inside
//!   lock                  held by the one worker that owns the state
//!   s/<n>/fs              a layer's own directory; n = base-36 counter, never used twice
//!   s/<n>/work            overlay's, while a step runs
//!   s/<n>/meta.json       present once the snapshot is complete
//!   stub/  empty/         constant bottom lowers
//!   trash/                renamed here, removed in the background
//! ```
//!
//! A snapshot is made at its final path and never moved: the next step uses it as a lower before its digest is known.
//! It is a cache: nothing is synced while a build waits; a snapshot whose writing a power cut may have torn is
//! recognised by its boot id and dropped.

mod attributes;
mod clock;
mod error;
mod inroot;
mod janitor;
mod meta;
mod overlay;
mod store;
mod stub;
pub mod unpack;
mod walk;

pub use attributes::Attributes;
#[cfg(test)]
pub(crate) use attributes::mtime_stamps;
pub(crate) use attributes::{ImageXattrs, file_type, image_xattrs, mtime_of, set_mtime};
pub use clock::Clock;
pub use error::{IoContext, SnapshotError};
pub use inroot::Root;
pub use meta::{ChainId, Meta, Times};
pub use overlay::{Overlay, Snapshotter, Tree};
pub use store::{Pending, Snapshot, Store};
pub(crate) use stub::{STUB_DIRS, STUB_FILES};
#[cfg(test)]
pub(crate) use walk::MAX_TREE_DEPTH;
pub(crate) use walk::{check_depth, first_names, join, names};
