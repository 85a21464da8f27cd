//! Lists: tags, repositories, referrers, page by page.

use http::Method;
use oci::{Descriptor, Digest, Reference, RepoName, Tag};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, LINK};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::Registry;
use super::manifests::read_limited;
use crate::auth::Scopes;
use crate::error::Error;
use crate::transport::Call;

/// Entries asked for a page.
const PAGE_ENTRIES: &str = "1000";
/// The longest page that is read.
const PAGE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// How many pages are followed: a registry must not hold a client forever.
const PAGES_MAX: usize = 10_000;

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    pub entries: Vec<T>,
    /// Where the next part is.
    pub next: Option<Url>,
}

#[derive(Deserialize)]
struct Tags {
    /// Go registries write `null` for none.
    tags: Option<Vec<Tag>>,
}

#[derive(Deserialize)]
struct Catalog {
    repositories: Option<Vec<RepoName>>,
}

#[derive(Deserialize)]
struct Referrers {
    manifests: Option<Vec<Descriptor>>,
}

impl Registry {
    /// All tags of a repository.
    pub async fn tags(&self, repository: &RepoName) -> Result<Vec<Tag>, Error> {
        let mut tags = Vec::new();
        let mut next = None;
        for _ in 0..PAGES_MAX {
            let page = self.tags_page(repository, next).await?;
            tags.extend(page.entries);
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        Ok(tags)
    }

    /// One page of a repository's tags: the first, or the one that the page before names.
    pub async fn tags_page(&self, repository: &RepoName, from: Option<Url>) -> Result<Page<Tag>, Error> {
        let path = format!("/v2/{repository}/tags/list");
        let call = self.page_call(
            &path,
            Scopes::pull(repository),
            format!("tags of {repository}"),
            from,
        );
        let (list, next) = self.page::<Tags>(call).await?;
        Ok(Page {
            entries: list.tags.unwrap_or_default(),
            next,
        })
    }

    /// The names of all repositories that the registry shows us.
    pub async fn catalog(&self) -> Result<Vec<RepoName>, Error> {
        let mut names = Vec::new();
        let mut next = None;
        for _ in 0..PAGES_MAX {
            let call = self.page_call("/v2/_catalog", Scopes::catalog(), "the catalog".to_owned(), next);
            let (list, following) = self.page::<Catalog>(call).await?;
            names.extend(list.repositories.unwrap_or_default());
            next = following;
            if next.is_none() {
                break;
            }
        }
        Ok(names)
    }

    /// The manifests whose subject is `digest`; in registries without the referrers API those that the tag
    /// `ALGORITHM-HEX` lists (distribution spec, "Unavailable Referrers API").
    pub async fn referrers(&self, repository: &RepoName, digest: &Digest) -> Result<Vec<Descriptor>, Error> {
        let path = format!("/v2/{repository}/referrers/{digest}");
        let what = format!("referrers of {repository}@{digest}");
        let mut found = Vec::new();
        let mut next = None;
        for _ in 0..PAGES_MAX {
            let call = self.page_call(&path, Scopes::pull(repository), what.clone(), next.take());
            match self.page::<Referrers>(call).await {
                Ok((list, following)) => {
                    found.extend(list.manifests.unwrap_or_default());
                    next = following;
                }
                Err(error) if error.is_not_found() => return self.tagged_referrers(repository, digest).await,
                Err(error) => return Err(error),
            }
            if next.is_none() {
                break;
            }
        }
        Ok(found)
    }

    async fn tagged_referrers(
        &self,
        repository: &RepoName,
        digest: &Digest,
    ) -> Result<Vec<Descriptor>, Error> {
        let mut text = digest.to_string().replace(':', "-");
        text.truncate(oci_tag_len(&text));
        let Ok(tag) = text.parse::<Tag>() else {
            return Ok(Vec::new());
        };
        match self.manifest(repository, &Reference::Tag(tag)).await {
            Ok(index) => Ok(index.manifest.children().to_vec()),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn page_call(&self, path: &str, scopes: Scopes, what: String, from: Option<Url>) -> Call {
        let mut call = self.transport.call(Method::GET, path, scopes, what);
        match from {
            Some(url) => call.url = url,
            None => {
                call.url.query_pairs_mut().append_pair("n", PAGE_ENTRIES);
            }
        }
        call
    }

    async fn page<T: DeserializeOwned>(&self, call: Call) -> Result<(T, Option<Url>), Error> {
        let place = self.transport.place(call.what.clone());
        let url = call.url.clone();
        let answer = self.transport.expect(call, &[StatusCode::OK]).await?;
        let next = match next_link(answer.headers()) {
            Some(link) => Some(self.transport.target(&url, &link, &place.what)?),
            None => None,
        };
        let body = read_limited(&place, answer, PAGE_BYTES_MAX).await?;
        let list = serde_json::from_slice(&body).map_err(|error| Error::Protocol {
            place,
            detail: error.to_string(),
        })?;
        Ok((list, next))
    }
}

/// The referrers tag is cut to the length of a tag (a sha512 digest is longer).
fn oci_tag_len(text: &str) -> usize {
    text.len().min(128)
}

/// The target of `Link: <URL>; rel="next"` (RFC 8288).
fn next_link(headers: &HeaderMap) -> Option<String> {
    headers.get_all(LINK).iter().find_map(|value| {
        value.to_str().ok()?.split(',').find_map(|link| {
            let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
            let is_next = parameters.split(';').any(|parameter| {
                let parameter = parameter.replace(['"', ' '], "").to_ascii_lowercase();
                parameter == "rel=next"
            });
            is_next.then(|| target.to_owned())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_among_links() {
        for (text, target) in [
            (
                r#"</v2/a/tags/list?last=x&n=2>; rel="next""#,
                Some("/v2/a/tags/list?last=x&n=2"),
            ),
            (r#"</a>; rel="prev", </b>;rel=next"#, Some("/b")),
            (r#"</a>; rel="prev""#, None),
            ("garbage", None),
        ] {
            let headers = HeaderMap::from_iter([(LINK, text.parse().unwrap())]);
            assert_eq!(next_link(&headers).as_deref(), target, "{text}");
        }
    }
}
