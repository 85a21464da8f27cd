//! `/api/v1/gc`, `/api/v1/trash`, `/api/v1/undelete`: what is collected and why, and how to get it back. Repositories are
//! parameters, since their names contain slashes.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use client::api::collection::{ExplainPage, Round, Status, TrashPage, UndeleteRequest, Undeleted};
use http::{StatusCode, Uri};
use oci::{Digest, RepoName};

use super::body::json;
use super::page::Query;
use super::{ApiError, AppState, Code};
use crate::metadata::collection::{Cursor, TrashCursor, Undelete};
use crate::service::{Action, Principal};

const UNDELETE_BYTES_MAX: usize = 64 * 1024;

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/gc", get(status))
        .route("/gc/run", post(run))
        .route("/gc/confirm", post(confirm))
        .route("/gc/explain", get(explain))
        .route("/trash", get(trash))
        .route("/undelete", post(undelete))
}

async fn status(State(state): State<AppState>, principal: Principal) -> Result<Json<Status>, ApiError> {
    principal.require_admin()?;
    Ok(Json(state.registry.collection_status().await?))
}

async fn run(State(state): State<AppState>, principal: Principal) -> Result<Json<Round>, ApiError> {
    principal.require_admin()?;
    state.audit(&principal, "gc run", "");
    let registry = std::sync::Arc::clone(&state.registry);
    // Whoever hangs up has asked for it all the same.
    let round = tokio::spawn(async move { registry.collect(|| false).await });
    let round = round.await.map_err(crate::service::RegistryError::from)??;
    Ok(Json(round))
}

async fn confirm(State(state): State<AppState>, principal: Principal) -> Result<Response, ApiError> {
    principal.require_admin()?;
    state.registry.confirm_collection().await?;
    state.audit(&principal, "gc confirm", "");
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Of a repository whoever may pull from it learns everything; of all only an administrator.
async fn explain(
    State(state): State<AppState>,
    principal: Principal,
    uri: Uri,
) -> Result<Json<ExplainPage>, ApiError> {
    let query = Query::of(&uri);
    let repository: Option<RepoName> = query.get("repository").map(str::parse).transpose()?;
    let digest: Option<Digest> = query.get("digest").map(str::parse).transpose()?;
    let after: Option<Cursor> = query
        .get("after")
        .map(str::parse)
        .transpose()
        .map_err(invalid_cursor)?;
    let Some(repository) = &repository else {
        principal.require_admin()?;
        return Ok(Json(state.registry.explain(None, after, query.limit()?).await?));
    };
    principal.require(Action::Pull, repository)?;
    Ok(Json(match &digest {
        Some(digest) => state.registry.explain_one(repository, digest).await?,
        None => {
            state
                .registry
                .explain(Some(repository), after, query.limit()?)
                .await?
        }
    }))
}

async fn trash(
    State(state): State<AppState>,
    principal: Principal,
    uri: Uri,
) -> Result<Json<TrashPage>, ApiError> {
    let query = Query::of(&uri);
    let repository: RepoName = query.get("repository").unwrap_or_default().parse()?;
    principal.require(Action::Pull, &repository)?;
    let after: Option<TrashCursor> = query
        .get("after")
        .map(str::parse)
        .transpose()
        .map_err(invalid_cursor)?;
    let after = after.unwrap_or_default();
    Ok(Json(
        state.registry.trash(&repository, after, query.limit()?).await?,
    ))
}

async fn undelete(
    State(state): State<AppState>,
    principal: Principal,
    body: Body,
) -> Result<Json<Undeleted>, ApiError> {
    let request: UndeleteRequest = json(body, UNDELETE_BYTES_MAX).await?;
    principal.require(Action::Push, &request.repository)?;
    if request.tag.is_none() && request.digest.is_none() {
        return Err(ApiError::new(
            Code::RequestInvalid,
            "say what to restore: a tag, a digest, or both",
        ));
    }
    let undelete = Undelete {
        repository: request.repository,
        tag: request.tag,
        digest: request.digest,
        force: request.force,
        actor: principal.actor(),
    };
    let what = [
        Some(undelete.repository.to_string()),
        undelete.tag.as_ref().map(ToString::to_string),
        undelete.digest.as_ref().map(ToString::to_string),
    ];
    let undeleted = state.registry.undelete(undelete).await?;
    let what: Vec<String> = what.into_iter().flatten().collect();
    state.audit(&principal, "undelete", &what.join(" "));
    Ok(Json(undeleted))
}

fn invalid_cursor(error: crate::metadata::collection::CursorError) -> ApiError {
    ApiError::new(Code::RequestInvalid, format!("parameter after: {error}"))
}
