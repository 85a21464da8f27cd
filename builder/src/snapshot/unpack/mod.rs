//! Archives to trees: image layers in overlay form, contexts, and the archives that ADD unpacks.

mod applied;
mod apply;
mod finish;
mod header;
mod layer;
mod reader;

pub use applied::Applied;
pub use apply::{Extractor, Options};
pub(crate) use layer::decode;
pub use layer::{LayerSource, Unpacked, unpack_layer};
pub use reader::{Content, Data, Member, MemberKind, Reader};
