//! `/api/v1/jobs`: workers take jobs.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use client::api::LeaseRequest;
use http::StatusCode;

use super::body::json;
use super::{ApiError, AppState, Code};
use crate::service::Principal;

const LEASE_BYTES_MAX: usize = 64 * 1024;

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/jobs/lease", post(lease))
}

async fn lease(
    State(state): State<AppState>,
    principal: Principal,
    body: Body,
) -> Result<Response, ApiError> {
    if !matches!(principal, Principal::Worker) {
        return Err(ApiError::new(
            Code::Denied,
            "only this server's build worker takes jobs",
        ));
    }
    let request: LeaseRequest = json(body, LEASE_BYTES_MAX).await?;
    Ok(match state.building.builds.lease(request).await {
        Some(job) => Json(job).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}
