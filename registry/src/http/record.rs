//! What is written down of a request: a line in the log, what the audit log and webhooks say of its sender.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::body::Body;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};

use super::AppState;
use super::app::Answer;
use super::route::Route;
use crate::metadata::Origin;

/// A request that the audit log tells of.
pub(super) struct Audited {
    event: &'static str,
    what: String,
}

impl Audited {
    pub(super) fn of(route: &Route, method: &Method) -> Option<Self> {
        let (event, what) = match (route, method) {
            (Route::Manifest(name, reference), &Method::PUT) => ("push", format!("{name} {reference}")),
            (Route::Manifest(name, reference), &Method::DELETE) => ("delete", format!("{name} {reference}")),
            (Route::Blob(name, digest), &Method::DELETE) => ("delete", format!("{name} {digest}")),
            _ => return None,
        };
        Some(Self { event, what })
    }

    pub(super) fn record(&self, state: &AppState, actor: &str, address: Option<IpAddr>, answer: &Answer) {
        match answer {
            Ok(_) => state.gate.audit.granted(self.event, actor, address, &self.what),
            Err(error) if error.is_refusal() => {
                state.gate.audit.refused(self.event, actor, address, &self.what);
            }
            Err(_) => {}
        }
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
