//! `/v2/_catalog`

use oci::RepoName;
use serde::Serialize;

use super::app::{Answer, Call};
use super::page::{Query, json, link_next};
use super::{ApiError, Code};

#[derive(Serialize)]
struct Catalog<'a> {
    repositories: &'a [RepoName],
}

pub(super) async fn list(call: Call<'_>) -> Answer {
    let query = Query::of(call.request.uri());
    let limit = query.limit()?;
    if call.principal.client().is_some_and(|client| !client.may_list()) {
        return Err(ApiError::new(
            Code::Unauthorized,
            "the token's scope does not allow listing repositories",
        ));
    }
    let page = call
        .state
        .registry
        .repositories(&call.principal, query.get("last"), limit)
        .await?;
    let mut response = json(&Catalog {
        repositories: &page.items,
    });
    if let Some(last) = page.next {
        link_next(
            &mut response,
            "/v2/_catalog",
            &[("n", &limit.to_string()), ("last", last.as_str())],
        );
    }
    Ok(response)
}
