//! `/v2/_catalog`

use oci::RepoName;
use serde::Serialize;

use super::app::{Answer, Call};
use super::page::{Query, json, link_next};
use crate::service::Action;

#[derive(Serialize)]
struct Catalog<'a> {
    repositories: &'a [RepoName],
}

pub(super) async fn list(call: Call<'_>) -> Answer {
    let query = Query::of(call.request.uri());
    let limit = query.limit()?;
    let mut page = call.state.registry.repositories(query.get("last"), limit).await?;
    let next = page.items.last().filter(|_| page.more).cloned();
    page.items.retain(|name| call.principal.may(Action::Pull, name));
    let mut response = json(&Catalog {
        repositories: &page.items,
    });
    if let Some(last) = next {
        link_next(
            &mut response,
            "/v2/_catalog",
            &[("n", &limit.to_string()), ("last", last.as_str())],
        );
    }
    Ok(response)
}
