//! What happens to every request: an id, the caller, dispatch, a metric and a line in the log.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::MatchedPath;
use axum::response::IntoResponse;
use futures::FutureExt;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use prometheus_client::metrics::gauge::Gauge;
use tower::ServiceExt;
use tracing::Instrument as _;

use super::body::Watched;
use super::connection::Caller;
use super::held::hold;
use super::principal::{Asked, log_in_first};
use super::record::{Answered, Asker, Audited, Noted, origin};
use super::route::{Kind, Route, is_text};
use super::{
    ApiError, AppState, Code, Outbox, api, blobs, catalog, manifests, referrers, spans, tags, uploads,
};
use crate::service::Principal;
use crate::service::access::Arrival;

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
    /// By the worker's unix socket, which leads here only.
    pub(super) socket: bool,
    pub(super) address: Option<IpAddr>,
}

pub(crate) struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

pub(super) type Answer = Result<Response<Body>, ApiError>;

/// An answer, and what was asked for.
struct Handled {
    kind: Kind,
    /// The path with its variables as such. None: nothing is there.
    template: Option<Template>,
    response: Response<Body>,
}

enum Template {
    Distribution(&'static str),
    Beside(MatchedPath),
}

impl Handled {
    fn other(response: Response<Body>) -> Self {
        let template = response.extensions().get().cloned().map(Template::Beside);
        Self {
            kind: Kind::Other,
            template,
            response,
        }
    }
}

impl Template {
    fn as_str(&self) -> &str {
        match self {
            Self::Distribution(path) => path,
            Self::Beside(path) => path.as_str(),
        }
    }
}

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
    pub(crate) async fn call(&self, request: Request<Incoming>, caller: Caller) -> Response<Body> {
        let begun = Instant::now();
        let (version, peer) = (request.version(), caller.peer);
        let busy = caller.activity.begin(version);
        let id = self.request_id(&request);
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let mut request = request.map(|body| self.counted(body, &method));
        let upload = is_upload(&method, uri.path()).then(|| self.state.metrics.upload());
        if !method.is_safe() || self.state.notices.get().is_some() {
            let origin = origin(&request, &id, peer);
            request.extensions_mut().insert(origin);
        }
        let arrival = self.state.seen_through_proxies(caller.arrival, request.headers());
        let span = spans::begin(&request, &arrival, &id);
        let answering = AssertUnwindSafe(self.dispatch(request, arrival, caller.outbox)).catch_unwind();
        let mut handled = answering.instrument(span.clone()).await.unwrap_or_else(|_| {
            let error = ApiError::new(Code::Internal, "internal error: the server's log has the details");
            Handled::other(error.into_response())
        });
        let response = &mut handled.response;
        if method == Method::HEAD {
            without_body(response);
        }
        let took = begun.elapsed();
        drop(upload);
        if method == Method::GET && response.status().is_success() {
            self.state.metrics.sent(length(response));
        }
        self.state
            .metrics
            .request(handled.kind, &method, response.status(), took);
        Answered {
            method: &method,
            path: uri.path(),
            response,
            id: &id,
            peer,
            trace: spans::trace_id(&span),
            took,
        }
        .log();
        let route = handled.template.as_ref().map(Template::as_str);
        spans::answered(span, &method, route, &mut handled.response);
        handled.response.headers_mut().insert(REQUEST_ID, id);
        // An answer on HTTP/1 keeps its connection by itself.
        if version == Version::HTTP_2 {
            hold(&mut handled.response, busy);
        }
        handled.response
    }

    /// A body whose bytes are counted as they come, as long as they come.
    fn counted(&self, body: Incoming, method: &Method) -> Body {
        if method.is_safe() {
            return Body::new(body);
        }
        let received = self.state.metrics.received_bytes.clone();
        let stalled_max = self.state.registry.limits.body_stalled_max;
        Body::new(Watched::new(body, received, stalled_max))
    }

    async fn dispatch(&self, request: Request<Body>, arrival: Arrival, outbox: Option<Outbox>) -> Handled {
        if let Some(reason) = self
            .state
            .read_only
            .as_deref()
            .filter(|_| !request.method().is_safe() && request.uri().path() != "/token")
        {
            return Handled::other(ApiError::new(Code::Unavailable, reason).into_response());
        }
        if !arrival.socket
            && let Err(refused) = self.state.site.admit(&request, self.state.gate.is_guarded())
        {
            return Handled::other(refused.into_response());
        }
        let path = request.uri().path();
        if path != "/v2" && !path.starts_with("/v2/") {
            return Handled::other(self.beside(request, arrival).await);
        }
        let mut handled = match Route::parse(request.uri()) {
            Ok(route) => Handled {
                kind: route.kind(),
                template: Some(Template::Distribution(route.template())),
                response: self
                    .distribution(route, request, arrival, outbox)
                    .await
                    .unwrap_or_else(IntoResponse::into_response),
            },
            Err(error) => Handled::other(error.into_response()),
        };
        let headers = handled.response.headers_mut();
        headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
        handled
    }

    /// What isn't the distribution API.
    async fn beside(&self, mut request: Request<Body>, arrival: Arrival) -> Response<Body> {
        // The router would answer in words of its own.
        if !is_text(request.uri().path()) {
            return ApiError::new(Code::NotFound, "the path is no text").into_response();
        }
        let could_log_in = self.state.could_log_in(&arrival, request.headers());
        let asked = Asked::of(request.uri(), request.headers(), &arrival);
        let (noted, address) = (Noted::default(), arrival.address);
        let asked_for = format!("{} {}", request.method(), request.uri().path());
        request.extensions_mut().insert(noted.clone());
        request.extensions_mut().insert(arrival);
        // The router's error type has no values.
        let mut response = self
            .router
            .clone()
            .oneshot(request)
            .await
            .unwrap_or_else(|never| match never {});
        let refused = matches!(
            response.status(),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
        );
        if let Some(caller) = noted.principal().filter(|_| refused && !could_log_in) {
            let audit = &self.state.gate.audit;
            audit.refused("api", &caller.actor(), address, &asked_for);
        }
        if could_log_in {
            *response.status_mut() = log_in_first(response.status());
        }
        if response.status() == StatusCode::UNAUTHORIZED {
            let challenge = self.state.challenge(&asked, Some("registry:api:*"));
            let headers = response.headers_mut();
            headers.entry(header::WWW_AUTHENTICATE).or_insert(challenge);
        }
        response
    }

    /// The distribution API, with what to do about a refusal.
    async fn distribution(
        &self,
        route: Route,
        request: Request<Body>,
        arrival: Arrival,
        outbox: Option<Outbox>,
    ) -> Answer {
        let asked = Asked::of(request.uri(), request.headers(), &arrival);
        let could_log_in = self.state.could_log_in(&arrival, request.headers());
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let mut asker = Asker {
            principal: None,
            address: arrival.address,
            could_log_in,
        };
        let audited = Audited::of(&route, &method);
        let answer = match self.state.principal(&arrival, request.headers()).await {
            Ok(principal) => {
                asker.principal = Some(principal.clone());
                let call = Call {
                    state: &self.state,
                    principal,
                    request,
                    outbox,
                    socket: arrival.socket,
                    address: arrival.address,
                };
                routed(call, route, could_log_in).await
            }
            Err(error) => Err(error),
        };
        match &answer {
            Ok(_) => audited.granted(&self.state.gate.audit, &asker),
            Err(error) if error.is_refusal() => {
                audited.refused(&self.state.gate.audit, &asker, uri.path());
            }
            Err(_) => {}
        }
        answer.map_err(|error| {
            let error = if could_log_in { error.into_log_in() } else { error };
            if !error.is_unauthorized() {
                return error;
            }
            let scope = Route::parse(&uri).ok().and_then(|route| route.scope(&method));
            error.with_challenge(self.state.challenge(&asked, scope.as_deref()))
        })
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

/// Finds the handler.
async fn routed(call: Call<'_>, route: Route, could_log_in: bool) -> Answer {
    let method = call.request.method().clone();
    match (route, &method) {
        // Clients take what this says for what all of the registry wants, and log-ins are tried here. A list would
        // be an answer that looks complete: nobody would log in to see more.
        (Route::Base | Route::Catalog, &Method::GET | &Method::HEAD) if could_log_in => Err(ApiError::new(
            Code::Unauthorized,
            "show who you are, or get a token as nobody in particular",
        )),
        (Route::Base, &Method::GET | &Method::HEAD) => Ok(super::page::json(&serde_json::json!({}))),
        (Route::Catalog, &Method::GET) => catalog::list(call).await,
        (Route::Tags(name), &Method::GET) => tags::list(call, name).await,
        (Route::Manifest(name, reference), &Method::GET | &Method::HEAD) => {
            manifests::get(call, name, reference).await
        }
        (Route::Manifest(name, reference), &Method::PUT) => manifests::put(call, name, reference).await,
        (Route::Manifest(name, reference), &Method::DELETE) => manifests::delete(call, name, reference).await,
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

/// Leaves of an answer its head. On HTTP/2 nobody else does, and clients take bytes there for a broken protocol.
fn without_body(response: &mut Response<Body>) {
    if let Some(length) = http_body::Body::size_hint(response.body())
        .exact()
        .filter(|length| *length > 0)
    {
        let headers = response.headers_mut();
        headers
            .entry(header::CONTENT_LENGTH)
            .or_insert(HeaderValue::from(length));
        *response.body_mut() = Body::empty();
    }
}

fn is_upload(method: &Method, path: &str) -> bool {
    matches!(*method, Method::POST | Method::PATCH | Method::PUT) && path.contains("/blobs/uploads/")
}

fn length(response: &Response<Body>) -> u64 {
    let header = response.headers().get(header::CONTENT_LENGTH);
    let text = header.and_then(|value| value.to_str().ok());
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}
