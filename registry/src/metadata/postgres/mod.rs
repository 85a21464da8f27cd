//! Metadata in PostgreSQL, for any number of replicas at once.
//!
//! Transactions are READ COMMITTED: every statement sees what was committed before it, so checks come after the lock
//! that keeps them true. The lock of a repository's row ([`rows::lock_repository`]) is the mutex of its manifests and
//! tags; commits of blobs and mounts do without. Locks are taken in the order repository, manifest, tag, blob, links
//! by ascending blob, and a transaction that deadlocks all the same is run again ([`transaction`]).
//!
//! The server's clock is the clock (`now_micros()`): replicas' own may differ. Nothing that another replica can change
//! is kept in memory; [`resolver`] makes asking cheap.

mod accounts;
mod blobs;
mod cache;
mod collection;
mod explain;
mod integrity;
mod leases;
mod link;
mod links;
mod lists;
mod manifests;
mod open;
mod outbox;
mod policing;
mod purge;
mod rebuild;
mod resolver;
mod rows;
mod tags;
#[cfg(test)]
pub(crate) mod tests;
mod transaction;
mod trash;
mod upkeep;
mod uploads;

use std::sync::Arc;

use moka::sync::Cache;

use super::values::Times;
use super::{MetadataStore, Opened, StoredManifest};
use link::Link;
use resolver::Resolver;

/// The schema generation that this binary reads and writes; compared with `store.min_binary`.
const GENERATION: i64 = 1;

pub(crate) struct Postgres {
    link: Arc<Link>,
    resolver: Resolver,
    /// By id and time of the push.
    manifests: Cache<(i64, i64), StoredManifest>,
    opened: Opened,
    /// The run of what holds the bytes of uploads.
    boot_id: String,
    /// This process, among those that write uploads.
    replica: String,
    times: Times,
}

impl MetadataStore for Postgres {
    fn is_shared(&self) -> bool {
        true
    }
}

/// What a commit must survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Durability {
    /// A crash of the database server.
    Durable,
    /// The end of this process.
    Async,
}
