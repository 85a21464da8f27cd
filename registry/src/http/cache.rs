//! `/api/v1/repositories/{name}/cache` and `…/memos`: the builder's step cache. Names hold slashes, so the paths are
//! taken apart from the right.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use client::api::{CacheLookup, CacheRecord};
use http::StatusCode;
use oci::RepoName;

use super::body::json;
use super::{ApiError, AppState, Code};
use crate::service::{Action, Principal, RegistryError};

const LOOKUP_BYTES_MAX: usize = 2 * 1024 * 1024;
const RECORD_BYTES_MAX: usize = 2 * 1024 * 1024;

pub(super) fn routes() -> Router<AppState> {
    Router::new().route("/repositories/{*rest}", post(look_up).put(put))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Cache,
    Memos,
}

/// `NAME/cache/LAST` or `NAME/memos/LAST`.
fn parse(rest: &str) -> Result<(RepoName, Kind, &str), ApiError> {
    let unknown = || ApiError::new(Code::NotFound, "there is nothing at this path");
    let (rest, last) = rest.rsplit_once('/').ok_or_else(unknown)?;
    let (name, kind) = rest.rsplit_once('/').ok_or_else(unknown)?;
    let kind = match kind {
        "cache" => Kind::Cache,
        "memos" => Kind::Memos,
        _ => return Err(unknown()),
    };
    Ok((name.parse()?, kind, last))
}

async fn look_up(
    State(state): State<AppState>,
    principal: Principal,
    Path(rest): Path<String>,
    body: Body,
) -> Result<Response, ApiError> {
    let (repository, kind, last) = parse(&rest)?;
    if last != "lookup" {
        return Err(ApiError::new(
            Code::MethodNotAllowed,
            "records are stored with PUT",
        ));
    }
    principal.require(Action::Pull, &repository)?;
    let lookup: CacheLookup = json(body, LOOKUP_BYTES_MAX).await?;
    Ok(match kind {
        Kind::Cache => Json(state.registry.find_cached(&repository, &lookup).await?).into_response(),
        Kind::Memos => Json(state.registry.find_memos(&repository, &lookup).await?).into_response(),
    })
}

async fn put(
    State(state): State<AppState>,
    principal: Principal,
    Path(rest): Path<String>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let (repository, kind, key) = parse(&rest)?;
    principal.require(Action::Push, &repository)?;
    // A build keeps its cache in one repository, even if it pushes to several.
    if let Principal::Build(grant) = &principal
        && grant.cache != repository
    {
        return Err(RegistryError::Denied {
            actor: principal.actor(),
            repository,
        }
        .into());
    }
    match kind {
        Kind::Cache => {
            let record: CacheRecord = json(body, RECORD_BYTES_MAX).await?;
            state.registry.put_cached(&repository, key, &record).await?;
        }
        Kind::Memos => {
            let value: String = json(body, RECORD_BYTES_MAX).await?;
            state.registry.put_memo(&repository, key, &value).await?;
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_anything_a_name_may() {
        for (path, name, kind, last) in [
            ("app/cache/lookup", "app", Kind::Cache, "lookup"),
            ("a/cache/cache/00ff", "a/cache", Kind::Cache, "00ff"),
            ("cache/memos/lookup", "cache", Kind::Memos, "lookup"),
        ] {
            let parsed = parse(path).unwrap();
            assert_eq!(parsed, (name.parse().unwrap(), kind, last), "{path}");
        }
        for bad in [
            "",
            "cache/lookup",
            "app/other/lookup",
            "../cache/lookup",
            "A/cache/lookup",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
