//! `/api/v1/contexts`: users send build contexts, workers fetch them.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::StreamExt as _;
use http::{HeaderMap, StatusCode, header};
use tokio_util::io::ReaderStream;

use super::{ApiError, AppState};
use crate::service::Principal;
use crate::service::builds::BuildError;

/// How much of a context is read at once.
const PIECE_BYTES: usize = 256 * 1024;

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/contexts", post(create))
        .route("/contexts/{id}", get(read))
}

async fn create(
    State(state): State<AppState>,
    principal: Principal,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    if !principal.may_build() {
        let (actor, repositories) = (principal.actor(), Vec::new());
        return Err(BuildError::Denied { actor, repositories }.into());
    }
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let pieces = body.into_data_stream().map(|piece| piece.map_err(Into::into));
    let created = state.building.contexts.create(announced, pieces).await?;
    let location = format!("/api/v1/contexts/{}", created.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(created)).into_response())
}

async fn read(
    State(state): State<AppState>,
    principal: Principal,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    // What isn't this build's doesn't exist for it.
    if !state.building.builds.may_read_context(&principal, &id) {
        return Err(BuildError::ContextUnknown(id).into());
    }
    let (file, size) = state.building.contexts.open_file(&id).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/x-tar".to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
    ];
    let body = Body::from_stream(ReaderStream::with_capacity(file, PIECE_BYTES));
    Ok((headers, body).into_response())
}
