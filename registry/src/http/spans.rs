//! A request as a span, named and described as OpenTelemetry's conventions for HTTP servers want it.

use axum::body::Body;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version, header};
use opentelemetry::global;
use opentelemetry::propagation::Extractor;
use opentelemetry::trace::TraceContextExt as _;
use tracing::field::Empty;
use tracing::{Span, trace_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::held::hold;
use crate::service::access::Arrival;
use crate::traces::TARGET;

/// Probes and scrapes would drown the rest.
const UNTRACED: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// The span of a request, continuing its caller's trace.
pub(super) fn begin<B>(request: &Request<B>, arrival: &Arrival, id: &HeaderValue) -> Span {
    if UNTRACED.contains(&request.uri().path()) {
        return Span::none();
    }
    let headers = request.headers();
    let span = trace_span!(
        target: TARGET,
        "request",
        "otel.name" = name_of(request.method()),
        "otel.kind" = "server",
        "otel.status_code" = Empty,
        "error.type" = Empty,
        "http.request.method" = method(request.method()),
        "http.request.method_original" = original(request.method()),
        "http.response.status_code" = Empty,
        "http.route" = Empty,
        "url.path" = request.uri().path(),
        "url.scheme" = if arrival.tls { "https" } else { "http" },
        "server.address" = authority(request).as_ref().map(Authority::host),
        "server.port" = authority(request).and_then(|host| host.port_u16()).map(i64::from),
        "client.address" = arrival.address.map(tracing::field::display),
        "network.protocol.name" = "http",
        "network.protocol.version" = version(request.version()),
        "user_agent.original" = text(headers, header::USER_AGENT),
        "layeryard.request_id" = id.to_str().ok(),
    );
    if !span.is_disabled() {
        let caller = global::get_text_map_propagator(|propagator| propagator.extract(&Headers(headers)));
        if let Err(error) = span.set_parent(caller) {
            tracing::warn!(%error, "a caller's trace is not continued");
        }
    }
    span
}

/// What is known when there is an answer. The span ends with the answer's last byte.
pub(super) fn answered(span: Span, method: &Method, route: Option<&str>, response: &mut Response<Body>) {
    if span.is_disabled() {
        return;
    }
    let status = response.status();
    span.record("http.response.status_code", i64::from(status.as_u16()));
    if let Some(route) = route {
        span.record("http.route", route);
        let name = format!("{} {route}", name_of(method));
        span.context().span().update_name(name);
    }
    // What a caller did wrong is no error of a server.
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
        span.record("error.type", status.as_str());
    }
    hold(response, span);
}

/// By which a line of the log and a trace are found together.
pub(super) fn trace_id(span: &Span) -> Option<String> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let span = context.span();
    let context = span.span_context();
    context.is_valid().then(|| context.trace_id().to_string())
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(header::HeaderName::as_str).collect()
    }
}

/// The conventions' names; any other method could be anything, and as many.
fn method(method: &Method) -> &str {
    if is_known(method) {
        method.as_str()
    } else {
        "_OTHER"
    }
}

fn original(method: &Method) -> Option<&str> {
    (!is_known(method)).then(|| method.as_str())
}

/// What a span is called until its route is known.
fn name_of(method: &Method) -> &str {
    if is_known(method) { method.as_str() } else { "HTTP" }
}

fn is_known(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::PATCH
            | Method::DELETE
            | Method::OPTIONS
            | Method::CONNECT
            | Method::TRACE
    )
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

/// The host that was called.
fn authority<B>(request: &Request<B>) -> Option<Authority> {
    let named = || text(request.headers(), header::HOST)?.parse().ok();
    request.uri().authority().cloned().or_else(named)
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
