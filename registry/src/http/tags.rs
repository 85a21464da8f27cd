//! `/v2/<name>/tags/list`

use oci::{RepoName, Tag};
use serde::Serialize;

use super::app::{Answer, Call};
use super::page::{Query, json, link_next};
use crate::service::Action;

#[derive(Serialize)]
struct Tags<'a> {
    name: &'a RepoName,
    tags: &'a [Tag],
}

pub(super) async fn list(call: Call<'_>, name: RepoName) -> Answer {
    call.principal.require(Action::Pull, &name)?;
    let query = Query::of(call.request.uri());
    let limit = query.limit()?;
    let page = call.state.registry.tags(&name, query.get("last"), limit).await?;
    let mut response = json(&Tags {
        name: &name,
        tags: &page.items,
    });
    // Without an item there is no place to go on from: n=0 asks for none.
    if let Some(last) = page.items.last().filter(|_| page.more) {
        let path = format!("/v2/{name}/tags/list");
        link_next(
            &mut response,
            &path,
            &[("n", &limit.to_string()), ("last", last.as_str())],
        );
    }
    Ok(response)
}
