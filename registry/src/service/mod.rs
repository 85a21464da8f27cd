//! What a registry does, without HTTP.

pub(crate) mod access;
mod batches;
mod blobs;
pub(crate) mod building;
pub(crate) mod builds;
pub(crate) mod cache;
mod cached;
mod closing;
pub(crate) mod collection;
mod contexts;
mod error;
#[cfg(test)]
mod fault_tests;
mod ingest;
mod janitor;
pub(crate) mod jobs;
pub(crate) mod journal;
mod lists;
mod manifests;
pub(crate) mod policies;
#[cfg(test)]
mod tests;
mod uploads;
pub(crate) mod upstream;
mod verify;
pub(crate) mod webhooks;

use std::sync::Arc;

use tracing::Span;

pub(crate) use access::{Action, Principal, Tokens};
pub(crate) use batches::{BodyStream, drain};
pub(crate) use blobs::OpenBlob;
pub(crate) use building::Building;
pub(crate) use error::{BodyError, RegistryError, Result};
pub(crate) use jobs::{JobMetrics, Jobs};
pub(crate) use manifests::PushManifest;
pub(crate) use uploads::{Chunk, Session};
pub(crate) use webhooks::Webhooks;

use crate::config::Limits;
use crate::metadata::MetadataStore;
use crate::storage::BlobStore;
use crate::traces;
use cached::Caches;
pub(crate) use collection::CollectionMetrics;
use collection::PullCounts;
use policies::Policies;

/// A registry over its two stores.
pub(crate) struct Registry {
    pub(crate) metadata: Arc<dyn MetadataStore>,
    pub(crate) store: Arc<dyn BlobStore>,
    pub(crate) limits: Limits,
    /// Accept indexes whose manifests are not all here.
    sparse_indexes: bool,
    /// The database's name in traces.
    database: &'static str,
    /// Whether events are also for webhooks.
    webhooks: bool,
    caches: Caches,
    pub(crate) collection: CollectionMetrics,
    pulls: PullCounts,
    policies: Policies,
    receiving: batches::Receiving,
}

impl Registry {
    pub(crate) fn new(
        metadata: Arc<dyn MetadataStore>,
        store: Arc<dyn BlobStore>,
        limits: Limits,
        sparse_indexes: bool,
    ) -> Self {
        let shared = metadata.is_shared();
        Self {
            metadata,
            store,
            sparse_indexes,
            database: if shared { "postgresql" } else { "sqlite" },
            webhooks: false,
            caches: Caches::new(limits.review_delay, shared),
            limits,
            collection: CollectionMetrics::default(),
            pulls: PullCounts::new(),
            policies: Policies::default(),
            receiving: batches::Receiving::default(),
        }
    }

    /// Keeps events until webhooks were told of them, too.
    pub(crate) fn with_webhooks(self) -> Self {
        Self {
            webhooks: true,
            ..self
        }
    }

    pub(crate) fn with_policies(mut self, policies: Policies) -> Self {
        self.policies = policies;
        self
    }

    /// A call of the database in the traces.
    fn query(&self, operation: &'static str) -> Span {
        traces::query(self.database, operation)
    }

    fn tells_events(&self) -> bool {
        self.webhooks
    }
}
