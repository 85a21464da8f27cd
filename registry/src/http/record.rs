//! What is written down of a request: a line in the log, what the audit log and webhooks say of its sender.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};

use super::route::Route;
use crate::metadata::Origin;
use crate::service::Principal;
use crate::service::access::Audit;

/// What the audit log calls a request.
pub(super) struct Audited {
    event: &'static str,
    /// Of a change, which is told of also when it is granted.
    change: Option<String>,
}

impl Audited {
    pub(super) fn of(route: &Route, method: &Method) -> Self {
        let event = match *method {
            Method::GET | Method::HEAD => "pull",
            Method::DELETE => "delete",
            _ => "push",
        };
        let change = match (route, method) {
            (Route::Manifest(name, reference), &Method::PUT | &Method::DELETE) => {
                Some(format!("{name} {reference}"))
            }
            (Route::Blob(name, digest), &Method::DELETE) => Some(format!("{name} {digest}")),
            _ => None,
        };
        Self { event, change }
    }

    pub(super) fn granted(&self, audit: &Audit, asker: &Asker) {
        if let (Some(change), Some(who)) = (&self.change, asker.who()) {
            audit.granted(self.event, &who, asker.address, change);
        }
    }

    /// A first request without credentials is how clients learn to show some: nothing to tell of, unless it would have
    /// changed something.
    pub(super) fn refused(&self, audit: &Audit, asker: &Asker, path: &str) {
        let Some(who) = asker.who() else { return };
        match &self.change {
            Some(change) => audit.refused(self.event, &who, asker.address, change),
            None if asker.could_log_in => {}
            None => audit.refused(self.event, &who, asker.address, path),
        }
    }
}

/// Who sent a request, for the audit log. Without a principal their credentials were wrong, which was told already.
pub(super) struct Asker {
    pub(super) principal: Option<Principal>,
    pub(super) address: Option<IpAddr>,
    pub(super) could_log_in: bool,
}

impl Asker {
    pub(super) fn who(&self) -> Option<String> {
        self.principal.as_ref().map(Principal::actor)
    }
}

/// Where a handler's caller is noted while the handler runs.
#[derive(Clone, Default)]
pub(super) struct Noted(Arc<OnceLock<Principal>>);

impl Noted {
    pub(super) fn note(&self, principal: &Principal) {
        // A request has one principal, however often it is looked for.
        let _ = self.0.set(principal.clone());
    }

    pub(super) fn principal(&self) -> Option<Principal> {
        self.0.get().cloned()
    }
}

/// Who asks for a change, for those who are told of it.
pub(super) fn origin(request: &Request<Body>, id: &HeaderValue, peer: Option<SocketAddr>) -> Origin {
    let text = |value: Option<&HeaderValue>| {
        let text = value.and_then(|value| value.to_str().ok());
        text.unwrap_or_default().to_owned()
    };
    let authority = request.uri().authority().map(ToString::to_string);
    Origin {
        id: text(Some(id)),
        address: peer.map(|peer| peer.to_string()).unwrap_or_default(),
        host: authority.unwrap_or_else(|| text(request.headers().get(header::HOST))),
        user_agent: text(request.headers().get(header::USER_AGENT)),
    }
}

/// An answered request.
pub(super) struct Answered<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) response: &'a Response<Body>,
    pub(super) id: &'a HeaderValue,
    pub(super) peer: Option<SocketAddr>,
    pub(super) trace: Option<String>,
    pub(super) took: Duration,
}

impl Answered<'_> {
    pub(super) fn log(&self) {
        let status = self.response.status();
        // The scrapes of probes and metrics would drown the rest.
        if status == StatusCode::OK && matches!(self.path, "/healthz" | "/readyz" | "/metrics") {
            return;
        }
        let headers = self.response.headers();
        tracing::info!(
            target: "layeryard::access",
            method = self.method.as_str(),
            path = self.path,
            status = status.as_u16(),
            bytes = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()),
            micros = u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX),
            id = self.id.to_str().unwrap_or_default(),
            trace = self.trace,
            peer = self.peer.map(tracing::field::display),
        );
    }
}
