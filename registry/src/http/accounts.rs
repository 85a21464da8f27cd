//! `/api/v1/users`, `groups`, `tokens`, `grants`, `whoami`.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::routing::{delete, get, patch, put};
use axum::{Json, Router};
use client::api::accounts::{
    ChangeUser, GrantInfo, GroupInfo, NewToken, NewUser, TokenCreated, TokenInfo, UserInfo, WhoAmI,
};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;

use super::body::json;
use super::{ApiError, AppState, Code};
use crate::service::Principal;
use crate::service::access::ManageError;

const REQUEST_BYTES_MAX: usize = 256 * 1024;

type Answer<T> = Result<T, ApiError>;

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/whoami", get(whoami))
        .route("/users", get(users).post(add_user))
        .route("/users/{name}", patch(change_user).delete(remove_user))
        .route("/groups", get(groups))
        .route("/groups/{group}", delete(remove_group))
        .route(
            "/groups/{group}/members/{member}",
            put(add_member).delete(remove_member),
        )
        .route("/tokens", get(tokens).post(create_token))
        .route("/tokens/{name}", delete(revoke_token))
        .route("/grants", get(grants).put(put_grant).delete(remove_grant))
}

/// Also where clients learn how to log in before they send what they can send once only.
async fn whoami(
    State(state): State<AppState>,
    principal: Principal,
    headers: HeaderMap,
) -> Answer<Json<WhoAmI>> {
    let guarded = state.gate.is_guarded();
    let authenticated = principal.is_authenticated();
    if guarded && !authenticated && !headers.contains_key(header::AUTHORIZATION) {
        return Err(ApiError::new(
            Code::Unauthorized,
            "show who you are, or get a token as nobody in particular",
        ));
    }
    Ok(Json(WhoAmI {
        name: principal.actor(),
        authenticated,
        admin: principal.is_admin(),
        guarded,
    }))
}

async fn users(State(state): State<AppState>, principal: Principal) -> Answer<Json<Vec<UserInfo>>> {
    Ok(Json(state.gate.manage(&principal)?.users()))
}

async fn add_user(State(state): State<AppState>, principal: Principal, body: Body) -> Answer<StatusCode> {
    let manage = state.gate.manage(&principal)?;
    let user: NewUser = json(body, REQUEST_BYTES_MAX).await?;
    manage.add_user(user).await?;
    Ok(StatusCode::CREATED)
}

async fn change_user(
    State(state): State<AppState>,
    principal: Principal,
    Path(name): Path<String>,
    body: Body,
) -> Answer<StatusCode> {
    let manage = state.gate.manage(&principal)?;
    let change: ChangeUser = json(body, REQUEST_BYTES_MAX).await?;
    manage.change_user(&name, change).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_user(
    State(state): State<AppState>,
    principal: Principal,
    Path(name): Path<String>,
) -> Answer<StatusCode> {
    state.gate.manage(&principal)?.remove_user(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn groups(State(state): State<AppState>, principal: Principal) -> Answer<Json<Vec<GroupInfo>>> {
    Ok(Json(state.gate.manage(&principal)?.groups()))
}

async fn remove_group(
    State(state): State<AppState>,
    principal: Principal,
    Path(group): Path<String>,
) -> Answer<StatusCode> {
    state.gate.manage(&principal)?.remove_group(&group).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn add_member(
    State(state): State<AppState>,
    principal: Principal,
    Path((group, member)): Path<(String, String)>,
) -> Answer<StatusCode> {
    state.gate.manage(&principal)?.add_member(&group, &member).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_member(
    State(state): State<AppState>,
    principal: Principal,
    Path((group, member)): Path<(String, String)>,
) -> Answer<StatusCode> {
    state
        .gate
        .manage(&principal)?
        .remove_member(&group, &member)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn tokens(State(state): State<AppState>, principal: Principal) -> Answer<Json<Vec<TokenInfo>>> {
    if !principal.is_authenticated() && !principal.is_admin() {
        return Err(ApiError::new(Code::Denied, "tokens belong to users: log in"));
    }
    Ok(Json(state.gate.tokens(&principal)))
}

async fn create_token(
    State(state): State<AppState>,
    principal: Principal,
    body: Body,
) -> Answer<(StatusCode, Json<TokenCreated>)> {
    let token: NewToken = json(body, REQUEST_BYTES_MAX).await?;
    let created = state.gate.create_token(&principal, token).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

async fn revoke_token(
    State(state): State<AppState>,
    principal: Principal,
    Path(name): Path<String>,
) -> Answer<StatusCode> {
    if !principal.is_authenticated() && !principal.is_admin() {
        return Err(ApiError::new(Code::Denied, "tokens belong to users: log in"));
    }
    state.gate.revoke_token(&principal, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn grants(State(state): State<AppState>, principal: Principal) -> Answer<Json<Vec<GrantInfo>>> {
    Ok(Json(state.gate.manage(&principal)?.grants()))
}

async fn put_grant(State(state): State<AppState>, principal: Principal, body: Body) -> Answer<StatusCode> {
    let manage = state.gate.manage(&principal)?;
    let grant: GrantInfo = json(body, REQUEST_BYTES_MAX).await?;
    manage.put_grant(grant).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct WhichGrant {
    subject: String,
    pattern: String,
}

async fn remove_grant(
    State(state): State<AppState>,
    principal: Principal,
    query: Result<Query<WhichGrant>, axum::extract::rejection::QueryRejection>,
) -> Answer<StatusCode> {
    let manage = state.gate.manage(&principal)?;
    let Query(which) = query.map_err(|_| {
        ApiError::new(
            Code::RequestInvalid,
            "removing a grant needs the parameters subject and pattern",
        )
    })?;
    manage.remove_grant(&which.subject, &which.pattern).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<ManageError> for ApiError {
    fn from(error: ManageError) -> Self {
        use ManageError as E;
        let message = error.to_string();
        match error {
            E::Unknown { .. } => Self::new(Code::NotFound, message),
            E::Exists { .. } => Self::new(Code::Exists, message),
            E::Name { .. } | E::Invalid(_) | E::Password(_) => Self::new(Code::RequestInvalid, message),
            E::Denied { .. } => Self::new(Code::Denied, message),
            E::Metadata(_) | E::Gate(_) => Self::internal(&error),
        }
    }
}
