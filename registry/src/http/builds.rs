//! `/api/v1/builds`: users ask for builds and read along.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use client::api::{BuildCreated, BuildOutcome, BuildRequest, Control, EventBatch};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use std::time::Duration;

use super::body::json;
use super::{ApiError, AppState};
use crate::service::Principal;
use crate::service::builds::EventReader;

/// The longest build request: the Dockerfile and all that belongs to it.
const REQUEST_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The longest batch of events.
const EVENTS_BYTES_MAX: usize = 32 * 1024 * 1024;
const OUTCOME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a worker's question for a cancel waits if it doesn't say.
const CONTROL_WAIT_SECONDS: u64 = 30;

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/builds", get(list).post(create))
        .route("/builds/{id}", get(status).delete(cancel))
        .route("/builds/{id}/events", get(events).post(append))
        .route("/builds/{id}/control", get(control))
        .route("/builds/{id}/result", post(finish))
}

async fn create(
    State(state): State<AppState>,
    principal: Principal,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let request: BuildRequest = json(body, REQUEST_BYTES_MAX).await?;
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .map(str::to_owned);
    let id = Box::pin(state.building.builds.create(&principal, request, host)).await?;
    state.audit(&principal, "build", &id);
    let location = format!("/api/v1/builds/{id}");
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(BuildCreated { id }),
    )
        .into_response())
}

async fn list(State(state): State<AppState>, principal: Principal) -> Response {
    Json(state.building.builds.list(&principal)).into_response()
}

async fn status(
    State(state): State<AppState>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    Ok(Json(state.building.builds.status(&principal, &id)?).into_response())
}

async fn cancel(
    State(state): State<AppState>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    state.building.builds.cancel(&principal, &id).await?;
    state.audit(&principal, "cancel build", &id);
    Ok(StatusCode::ACCEPTED)
}

#[derive(Deserialize)]
struct After {
    #[serde(default)]
    after: u64,
}

async fn events(
    State(state): State<AppState>,
    principal: Principal,
    Path(id): Path<String>,
    query: Result<Query<After>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(After { after }) = query.map_err(|_| number("after"))?;
    let reader = state.building.builds.events(&principal, &id, after).await?;
    let lines = futures::stream::try_unfold(reader, |mut reader: EventReader| async move {
        Ok::<_, std::io::Error>(reader.next().await?.map(|piece| (piece, reader)))
    });
    let kind = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((kind, Body::from_stream(lines)).into_response())
}

async fn append(
    State(state): State<AppState>,
    principal: Principal,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Control>, ApiError> {
    let batch: EventBatch = json(body, EVENTS_BYTES_MAX).await?;
    Ok(Json(state.building.builds.append(&principal, &id, batch).await?))
}

#[derive(Deserialize)]
struct Wait {
    wait_seconds: Option<u64>,
}

async fn control(
    State(state): State<AppState>,
    principal: Principal,
    Path(id): Path<String>,
    query: Result<Query<Wait>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Control>, ApiError> {
    let Query(Wait { wait_seconds }) = query.map_err(|_| number("wait_seconds"))?;
    let wait = Duration::from_secs(wait_seconds.unwrap_or(CONTROL_WAIT_SECONDS));
    Ok(Json(state.building.builds.control(&principal, &id, wait).await?))
}

async fn finish(
    State(state): State<AppState>,
    principal: Principal,
    Path(id): Path<String>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let outcome: BuildOutcome = json(body, OUTCOME_BYTES_MAX).await?;
    state.building.builds.finish(&principal, &id, outcome).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn number(name: &str) -> ApiError {
    ApiError::new(
        super::Code::RequestInvalid,
        format!("query parameter {name:?} is not a number"),
    )
}
