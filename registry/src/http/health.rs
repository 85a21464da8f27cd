//! `/healthz`, `/readyz`, `/metrics`

use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header;

use super::{ApiError, AppState, Code};
use crate::config::MetricsAccess;
use crate::report::chain;
use crate::service::Principal;

/// How long the database, and the store, may take to answer a probe.
const PROBE_MAX: Duration = Duration::from_secs(5);

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

/// The process runs and takes requests.
async fn alive() -> &'static str {
    "ok\n"
}

/// The process can do its work, and goes on doing so.
async fn ready(State(state): State<AppState>) -> Result<&'static str, ApiError> {
    if state.draining.load(Ordering::Relaxed) {
        return Err(ApiError::new(Code::Unavailable, "the server is stopping"));
    }
    let registry = &state.registry;
    let (database, store) = tokio::join!(
        probe("the database", registry.metadata.ping()),
        probe("the blob store", registry.store.get_file("meta/probe")),
    );
    let failed: Vec<String> = [database.err(), store.err()].into_iter().flatten().collect();
    if !failed.is_empty() {
        return Err(ApiError::new(Code::Unavailable, failed.join("; ")));
    }
    Ok("ok\n")
}

/// What is wrong with a part of the server, in words for everybody; the log has the cause.
async fn probe<T, E>(part: &str, asked: impl Future<Output = Result<T, E>>) -> Result<(), String>
where
    E: std::error::Error + 'static,
{
    match tokio::time::timeout(PROBE_MAX, asked).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => {
            tracing::error!(part, error = chain(&error), "not ready");
            Err(format!("{part} can't be used: the server's log has the details"))
        }
        Err(_) => {
            tracing::error!(part, seconds = PROBE_MAX.as_secs(), "not ready: no answer");
            Err(format!("{part} has not answered for {} s", PROBE_MAX.as_secs()))
        }
    }
}

async fn metrics(
    State(state): State<AppState>,
    principal: Result<Principal, ApiError>,
) -> Result<Response, ApiError> {
    match state.gate.config.metrics {
        MetricsAccess::Public => {}
        MetricsAccess::Authenticated => {
            let principal = principal?;
            if state.gate.is_guarded() && !principal.is_authenticated() {
                return Err(ApiError::new(
                    Code::Denied,
                    "metrics are for those who log in; see access.metrics",
                ));
            }
        }
        MetricsAccess::Admin => principal?.require_admin()?,
    }
    // Asked for when it is wanted; a store that can't say is no reason to say nothing.
    if let Err(error) = state.registry.store.free_bytes().await {
        tracing::warn!(error = chain(&error), "free space is not known");
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], state.metrics.render()).into_response())
}
