//! `/token`: our own token service. What the answers look like is what Docker, containerd and the others read.

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures::TryStreamExt as _;
use http::{HeaderMap, Uri, header};
use oci::access::{Authorization, ResourceScope, ScopeError};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::page::Query;
use super::{ApiError, AppState, Code};
use crate::service::access::{Arrival, GrantedToken, TokenRequest};

/// The longest form: a token of a CI job and some scopes.
const FORM_BYTES_MAX: usize = 64 * 1024;
/// Scopes that one token is asked for at most.
const SCOPES_MAX: usize = 200;
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/token", get(by_query).post(by_form))
}

/// Both spellings of the token: the older specification's and OAuth's.
#[derive(Serialize)]
struct Answer {
    token: String,
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
    issued_at: String,
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_token_type: Option<&'static str>,
}

async fn by_query(
    State(state): State<AppState>,
    Extension(arrival): Extension<Arrival>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let query = Query::of(&uri);
    let request = match headers.get(header::AUTHORIZATION) {
        None => TokenRequest::Nothing,
        Some(value) => {
            let text = value.to_str().unwrap_or_default();
            let parsed = Authorization::parse(text);
            TokenRequest::Header(
                parsed.map_err(|error| ApiError::new(Code::Unauthorized, error.to_string()))?,
            )
        }
    };
    let scopes = scopes(query.all("scope"))?;
    let offline = query.get("offline_token") == Some("true");
    answer(&state, &arrival, request, &scopes, offline).await
}

async fn by_form(
    State(state): State<AppState>,
    Extension(arrival): Extension<Arrival>,
    body: Body,
) -> Result<Response, ApiError> {
    let form = form(body).await?;
    let field = |name: &str| {
        let found = form.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    };
    let needed = |name: &str| {
        field(name).ok_or_else(|| ApiError::new(Code::RequestInvalid, format!("field {name:?} is missing")))
    };
    let grant = needed("grant_type")?;
    let request = match grant {
        "password" => TokenRequest::Header(Authorization::Basic {
            username: needed("username")?.to_owned(),
            password: needed("password")?.to_owned(),
        }),
        "refresh_token" => TokenRequest::Refresh(needed("refresh_token")?.to_owned()),
        EXCHANGE => TokenRequest::Exchange(needed("subject_token")?.to_owned()),
        other => {
            let message =
                format!("grant type {other:?} is unknown: there are password, refresh_token, {EXCHANGE}");
            return Err(ApiError::new(Code::RequestInvalid, message));
        }
    };
    let wanted = form.iter().filter(|(name, _)| name == "scope");
    let scopes = scopes(wanted.map(|(_, value)| value.as_str()))?;
    let offline = field("access_type") == Some("offline");
    answer(&state, &arrival, request, &scopes, offline).await
}

async fn answer(
    state: &AppState,
    arrival: &Arrival,
    request: TokenRequest,
    scopes: &[ResourceScope],
    offline: bool,
) -> Result<Response, ApiError> {
    let exchanged = matches!(request, TokenRequest::Exchange(_));
    // The token with which a client refreshes stays good: Docker keeps the old one whatever the answer says.
    let refreshed = match &request {
        TokenRequest::Refresh(token) => Some(token.clone()),
        _ => None,
    };
    let GrantedToken {
        token,
        life_seconds,
        refresh,
        scope,
    } = state
        .gate
        .token(arrival, request, scopes, offline && refreshed.is_none())
        .await?;
    let answer = Answer {
        access_token: token.clone(),
        token,
        token_type: "Bearer",
        expires_in: life_seconds,
        issued_at: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
        scope,
        refresh_token: refresh.or(refreshed),
        issued_token_type: exchanged.then_some("urn:ietf:params:oauth:token-type:access_token"),
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}

fn scopes<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Vec<ResourceScope>, ApiError> {
    let invalid = |error: ScopeError| ApiError::new(Code::RequestInvalid, error.to_string());
    let mut scopes = Vec::new();
    for text in texts {
        scopes.extend(ResourceScope::parse_all(text).map_err(invalid)?);
    }
    if scopes.len() > SCOPES_MAX {
        let message = format!("at most {SCOPES_MAX} scopes fit a token");
        return Err(ApiError::new(Code::RequestInvalid, message));
    }
    Ok(scopes)
}

/// Reads `application/x-www-form-urlencoded`.
async fn form(body: Body) -> Result<Vec<(String, String)>, ApiError> {
    let mut bytes = Vec::new();
    let mut pieces = body.into_data_stream();
    let broken = |_| ApiError::new(Code::RequestInvalid, "the form broke off");
    while let Some(piece) = pieces.try_next().await.map_err(broken)? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > FORM_BYTES_MAX {
            return Err(ApiError::new(
                Code::TooLarge,
                format!("a form has at most {FORM_BYTES_MAX} bytes"),
            ));
        }
    }
    Ok(url::form_urlencoded::parse(&bytes).into_owned().collect())
}
