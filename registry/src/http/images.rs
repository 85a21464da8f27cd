//! `/api/v1/images`: what the names that people write mean.

use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use client::api::{ResolveRequest, ResolvedReference};
use http::{HeaderMap, header};

use super::body::json;
use super::{ApiError, AppState};
use crate::service::Principal;
use crate::service::upstream::Question;

const REQUEST_BYTES_MAX: usize = 64 * 1024;

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/images/resolve", post(resolve))
}

async fn resolve(
    State(state): State<AppState>,
    principal: Principal,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ResolvedReference>, ApiError> {
    let request: ResolveRequest = json(body, REQUEST_BYTES_MAX).await?;
    let build = match &principal {
        Principal::Build(grant) => Some(grant.build.clone()),
        _ => None,
    };
    // A worker calls the server by its socket; the name that counts is the one its user used.
    let called = match &build {
        Some(build) => state.building.builds.host(build),
        None => headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .map(str::to_owned),
    };
    let question = Question {
        principal: &principal,
        called: called.as_deref(),
        reference: &request.reference,
        platform: &request.platform,
    };
    let credential = |host: &str| state.building.builds.credential(build.as_deref()?, host);
    Ok(Json(
        Box::pin(state.building.upstream.resolve(question, credential)).await?,
    ))
}
