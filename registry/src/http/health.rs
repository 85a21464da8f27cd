//! `/healthz`, `/readyz`, `/metrics`

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header;

use super::{ApiError, AppState, Code};
use crate::report::chain;

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

/// The process can do its work.
async fn ready(State(state): State<AppState>) -> Result<&'static str, ApiError> {
    match state.registry.metadata.ping().await {
        Ok(()) => Ok("ok\n"),
        Err(error) => {
            tracing::error!(error = chain(&error), "not ready");
            Err(ApiError::new(Code::Unavailable, "the database does not answer"))
        }
    }
}

async fn metrics(State(state): State<AppState>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], state.metrics.render()).into_response()
}
