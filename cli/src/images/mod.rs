//! The commands that move images between registries and look at them.

mod copy;
mod inspect;
mod list;

pub(crate) use copy::run as copy;
pub(crate) use inspect::run as inspect;
pub(crate) use list::run as list;
