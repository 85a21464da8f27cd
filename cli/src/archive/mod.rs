//! Images in files: root file systems, `docker save` archives, OCI layouts.

mod compressed;
mod docker;
mod import;
mod layout;
mod load;
mod save;
mod store;

pub(crate) use import::run as import;
pub(crate) use load::run as load;
pub(crate) use save::run as save;
