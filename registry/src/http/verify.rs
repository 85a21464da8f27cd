//! `/api/v1/verify`

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use client::api::verify::VerifyStatus;
use http::StatusCode;

use super::{ApiError, AppState};
use crate::service::Principal;

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/verify", get(status).post(start).delete(stop))
}

async fn status(State(state): State<AppState>, principal: Principal) -> Result<Json<VerifyStatus>, ApiError> {
    principal.require_admin()?;
    Ok(Json(state.registry.verification().await?))
}

async fn start(
    State(state): State<AppState>,
    principal: Principal,
) -> Result<(StatusCode, Json<VerifyStatus>), ApiError> {
    principal.require_admin()?;
    let status = state.registry.start_verification().await?;
    state.audit(&principal, "verify start", "");
    Ok((StatusCode::ACCEPTED, Json(status)))
}

async fn stop(State(state): State<AppState>, principal: Principal) -> Result<Json<VerifyStatus>, ApiError> {
    principal.require_admin()?;
    let status = state.registry.stop_verification().await?;
    state.audit(&principal, "verify stop", "");
    Ok(Json(status))
}
