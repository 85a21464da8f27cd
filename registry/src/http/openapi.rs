//! `/api/v1/openapi.json`: what the API is, for programs that make clients of it.

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get;
use http::header;

use super::AppState;

const DESCRIPTION: &str = include_str!("../../../docs/openapi.json");

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/openapi.json", get(description))
}

async fn description() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DESCRIPTION)
}
