//! `/api/v1/images`: what the names that people write mean.

use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use client::api::{ResolveRequest, ResolvedReference};
use http::{HeaderMap, header};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::body::json;
use super::{ApiError, AppState};
use crate::service::Principal;
use crate::service::upstream::{Question, Transfer};

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
    let (progress, transfers) = unbounded_channel();
    let question = Question {
        principal: &principal,
        called: called.as_deref(),
        reference: &request.reference,
        platform: &request.platform,
        progress,
    };
    let credential = |host: &str| state.building.builds.credential(build.as_deref()?, host);
    // The question holds the sender, so the telling ends with the fetch.
    let resolving = Box::pin(state.building.upstream.resolve(question, credential));
    let (resolved, ()) = tokio::join!(
        resolving,
        tell(&state, build.as_deref(), &request.reference, transfers)
    );
    Ok(Json(resolved?))
}

/// Passes a fetch's progress on as events of the build that waits for it.
async fn tell(
    state: &AppState,
    build: Option<&str>,
    reference: &str,
    mut transfers: UnboundedReceiver<Transfer>,
) {
    while let Some(Transfer {
        done_bytes,
        total_bytes,
    }) = transfers.recv().await
    {
        let Some(build) = build else { continue };
        let event = serde_json::json!({
            "type": "progress",
            "id": reference,
            "action": "fetching",
            "done_bytes": done_bytes,
            "total_bytes": total_bytes,
        });
        state.building.builds.note(build, event).await;
    }
}
