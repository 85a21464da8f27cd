//! What every handler can reach.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use super::metrics::Metrics;
use super::{Site, UploadSlots};
use crate::service::access::Gate;
use crate::service::webhooks::Notices;
use crate::service::{Building, Principal, Registry};

/// Shared by all requests; cloning is cheap.
#[derive(Clone)]
pub(crate) struct AppState(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) registry: Arc<Registry>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) building: Building,
    pub(crate) metrics: Metrics,
    pub(crate) uploads: UploadSlots,
    pub(crate) site: Site,
    /// Empty: no webhook wants to hear of every request.
    pub(crate) notices: OnceLock<Notices>,
    /// The server is stopping.
    pub(crate) draining: AtomicBool,
    /// Why nothing may be changed now.
    pub(crate) read_only: Option<String>,
}

impl AppState {
    pub(crate) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// Tells the audit log of a change that was made.
    pub(super) fn audit(&self, principal: &Principal, event: &str, what: &str) {
        self.gate.audit.granted(event, &principal.actor(), None, what);
    }
}

impl std::ops::Deref for AppState {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}
