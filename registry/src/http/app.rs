//! What happens to every request: an id, the caller, dispatch, a metric and a line in the log.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use futures::FutureExt;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use prometheus_client::metrics::gauge::Gauge;
use tower::ServiceExt;

use super::route::{Kind, Route};
use super::{
    ApiError, AppState, Code, Outbox, Via, api, blobs, catalog, manifests, referrers, tags, uploads,
};
use crate::metadata::Origin;
use crate::service::Principal;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
/// A caller's own request id is taken over up to this length.
const REQUEST_ID_LEN_MAX: usize = 128;

/// The whole HTTP face.
pub(crate) struct App {
    state: AppState,
    router: Router<()>,
    /// Distinguishes this process's request ids from those of others.
    process: u32,
    requests: AtomicU32,
}

/// A `/v2` request on its way to a handler.
pub(super) struct Call<'a> {
    pub(super) state: &'a AppState,
    pub(super) principal: Principal,
    pub(super) request: Request<Body>,
    /// The connection's, where files can be sent past it.
    pub(super) outbox: Option<Outbox>,
    pub(super) via: Via,
}

pub(crate) struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

pub(super) type Answer = Result<Response<Body>, ApiError>;

impl App {
    pub(crate) fn new(state: AppState) -> Self {
        let router = api::router(state.clone());
        Self {
            state,
            router,
            process: rand::random(),
            requests: AtomicU32::new(0),
        }
    }

    /// Counts a connection as open until the guard is dropped.
    pub(crate) fn connection(&self) -> OpenConnection {
        let gauge = self.state.metrics.connections.clone();
        gauge.inc();
        OpenConnection(gauge)
    }

    /// Answers a request. Never fails: what goes wrong is an answer as well.
    pub(crate) async fn call(
        &self,
        request: Request<Incoming>,
        via: Via,
        peer: Option<SocketAddr>,
        outbox: Option<Outbox>,
    ) -> Response<Body> {
        let begun = Instant::now();
        let id = self.request_id(&request);
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let mut request = request.map(Body::new);
        if !method.is_safe() {
            let origin = origin(&request, &id, peer);
            request.extensions_mut().insert(origin);
        }
        let answering = AssertUnwindSafe(self.dispatch(request, via, outbox)).catch_unwind();
        let (kind, mut response) = answering.await.unwrap_or_else(|_| {
            let error = ApiError::new(Code::Internal, "internal error: the server's log has the details");
            (Kind::Other, error.into_response())
        });
        let took = begun.elapsed();
        self.state.metrics.request(kind, &method, response.status(), took);
        log(&method, uri.path(), &response, &id, peer, took);
        response.headers_mut().insert(REQUEST_ID, id);
        response
    }

    async fn dispatch(
        &self,
        request: Request<Body>,
        via: Via,
        outbox: Option<Outbox>,
    ) -> (Kind, Response<Body>) {
        if let Some(reason) = self
            .state
            .read_only
            .as_deref()
            .filter(|_| !request.method().is_safe())
        {
            return (
                Kind::Other,
                ApiError::new(Code::Unavailable, reason).into_response(),
            );
        }
        let path = request.uri().path();
        if path != "/v2" && !path.starts_with("/v2/") {
            let mut request = request;
            request.extensions_mut().insert(via);
            // The router's error type has no values.
            let response = self
                .router
                .clone()
                .oneshot(request)
                .await
                .unwrap_or_else(|never| match never {});
            return (Kind::Other, response);
        }
        let (kind, answer) = match Route::parse(request.uri()) {
            Ok(route) => (route.kind(), self.distribution(route, request, via, outbox).await),
            Err(error) => (Kind::Other, Err(error)),
        };
        let mut response = answer.unwrap_or_else(IntoResponse::into_response);
        response
            .headers_mut()
            .insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
        (kind, response)
    }

    /// The distribution API.
    async fn distribution(
        &self,
        route: Route,
        request: Request<Body>,
        via: Via,
        outbox: Option<Outbox>,
    ) -> Answer {
        let principal = self.state.principal(via, request.headers())?;
        let method = request.method().clone();
        let call = Call {
            state: &self.state,
            principal,
            request,
            outbox,
            via,
        };
        match (route, &method) {
            (Route::Base, &Method::GET | &Method::HEAD) => Ok(super::page::json(&serde_json::json!({}))),
            (Route::Catalog, &Method::GET) => catalog::list(call).await,
            (Route::Tags(name), &Method::GET) => tags::list(call, name).await,
            (Route::Manifest(name, reference), &Method::GET | &Method::HEAD) => {
                manifests::get(call, name, reference).await
            }
            (Route::Manifest(name, reference), &Method::PUT) => manifests::put(call, name, reference).await,
            (Route::Manifest(name, reference), &Method::DELETE) => {
                manifests::delete(call, name, reference).await
            }
            (Route::Blob(name, digest), &Method::GET | &Method::HEAD) => blobs::get(call, name, digest).await,
            (Route::Blob(name, digest), &Method::DELETE) => blobs::delete(call, name, digest).await,
            (Route::Uploads(name), &Method::POST) => uploads::start(call, name).await,
            (Route::Upload(name, id), &Method::GET | &Method::HEAD) => uploads::status(call, name, id).await,
            (Route::Upload(name, id), &Method::PATCH) => uploads::append(call, name, id).await,
            (Route::Upload(name, id), &Method::PUT) => uploads::finish(call, name, id).await,
            (Route::Upload(name, id), &Method::DELETE) => uploads::cancel(call, name, id).await,
            (Route::Referrers(name, digest), &Method::GET) => referrers::list(call, name, digest).await,
            _ => Err(ApiError::new(
                Code::MethodNotAllowed,
                format!("this path has no method {method}"),
            )),
        }
    }

    /// The caller's, so that a request can be followed through proxies; else a new one.
    fn request_id(&self, request: &Request<Incoming>) -> HeaderValue {
        let given = request.headers().get(REQUEST_ID);
        if let Some(id) = given.filter(|id| id.len() <= REQUEST_ID_LEN_MAX && id.to_str().is_ok()) {
            return id.clone();
        }
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut text = [0; 16];
        let bytes = (u64::from(self.process) << 32 | u64::from(number)).to_be_bytes();
        match hex::encode_to_slice(bytes, &mut text) {
            Ok(()) => HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("unknown")),
            Err(_) => HeaderValue::from_static("unknown"),
        }
    }
}

/// Who asks for a change, for those who are told of it.
fn origin(request: &Request<Body>, id: &HeaderValue, peer: Option<SocketAddr>) -> Origin {
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

fn log(
    method: &Method,
    path: &str,
    response: &Response<Body>,
    id: &HeaderValue,
    peer: Option<SocketAddr>,
    took: Duration,
) {
    let status = response.status();
    // The scrapes of probes and metrics would drown the rest.
    if status == StatusCode::OK && matches!(path, "/healthz" | "/readyz" | "/metrics") {
        return;
    }
    tracing::info!(
        target: "layeryard::access",
        method = method.as_str(),
        path,
        status = status.as_u16(),
        bytes = response.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()),
        micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        id = id.to_str().unwrap_or_default(),
        peer = peer.map(tracing::field::display),
    );
}
