//! `/v2/<name>/referrers/<digest>`

use axum::body::Body;
use http::{HeaderName, HeaderValue, Response, header};
use oci::{Digest, RepoName, media_type};

use super::app::{Answer, Call};
use super::page::{Query, link_next};
use super::{ApiError, Code};
use crate::service::Action;

const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// Always an index, empty where nothing is known.
pub(super) async fn list(call: Call<'_>, name: RepoName, subject: Digest) -> Answer {
    call.principal.require(Action::Pull, &name)?;
    let query = Query::of(call.request.uri());
    let wanted = query.get("artifactType").filter(|wanted| !wanted.is_empty());
    let after = query.get("last").map(read_cursor).transpose()?;
    let registry = &call.state.registry;
    let page = registry
        .referrers(&name, &subject, wanted.map(str::to_owned), after)
        .await?;

    let bytes = page
        .items
        .iter()
        .map(|referrer| referrer.descriptor.len() + 1)
        .sum::<usize>();
    let mut index = String::with_capacity(bytes + 128);
    index.push_str(r#"{"schemaVersion":2,"mediaType":""#);
    index.push_str(media_type::OCI_INDEX);
    index.push_str(r#"","manifests":["#);
    for (position, referrer) in page.items.iter().enumerate() {
        if position > 0 {
            index.push(',');
        }
        index.push_str(&referrer.descriptor);
    }
    index.push_str("]}");

    let mut response = Response::new(Body::from(index));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(media_type::OCI_INDEX),
    );
    if wanted.is_some() {
        response
            .headers_mut()
            .insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    if let Some(last) = page.items.last().filter(|_| page.more) {
        let cursor = format!("{} {}", last.digest, last.artifact_type);
        let path = format!("/v2/{name}/referrers/{subject}");
        match wanted {
            Some(wanted) => link_next(
                &mut response,
                &path,
                &[("artifactType", wanted), ("last", &cursor)],
            ),
            None => link_next(&mut response, &path, &[("last", &cursor)]),
        }
    }
    Ok(response)
}

/// A page's end as its `Link` wrote it: the last one's digest and artifact type.
fn read_cursor(text: &str) -> Result<(String, Digest), ApiError> {
    let (digest, artifact_type) = text
        .split_once(' ')
        .ok_or_else(|| ApiError::new(Code::PageInvalid, "parameter last must come from a Link header"))?;
    Ok((artifact_type.to_owned(), digest.parse()?))
}
