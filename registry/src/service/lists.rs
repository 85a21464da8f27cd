//! Pages of tags, repositories and referrers.

use oci::{Digest, RepoName, Tag};

use super::{Registry, RegistryError, Result};
use crate::metadata::{Referrer, ReferrersQuery};

/// Referrers in one page at most …
const REFERRERS_MAX: u32 = 1000;
/// … and their bytes: below the 4 MiB that clients accept as a manifest.
const REFERRERS_BYTES_MAX: usize = 3_500_000;

/// A part of a list, and whether there is more after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    pub(crate) more: bool,
}

impl<T> Page<T> {
    /// From one item more than fits.
    fn cut(mut items: Vec<T>, limit: u32) -> Self {
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        Self { items, more }
    }
}

impl Registry {
    pub(crate) async fn tags(
        &self,
        repository: &RepoName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<Tag>> {
        let tags = self.metadata.list_tags(repository, after, limit + 1).await?;
        let tags = tags.ok_or_else(|| RegistryError::NameUnknown(repository.clone()))?;
        Ok(Page::cut(tags, limit))
    }

    pub(crate) async fn repositories(&self, after: Option<&str>, limit: u32) -> Result<Page<RepoName>> {
        Ok(Page::cut(
            self.metadata.list_repositories(after, limit + 1).await?,
            limit,
        ))
    }

    /// Empty for what isn't known, as the specification asks.
    pub(crate) async fn referrers(
        &self,
        repository: &RepoName,
        subject: &Digest,
        artifact_type: Option<String>,
        after: Option<(String, Digest)>,
    ) -> Result<Page<Referrer>> {
        let query = ReferrersQuery {
            repository: repository.clone(),
            subject: *subject,
            artifact_type,
            after,
            limit: REFERRERS_MAX + 1,
        };
        let mut page = Page::cut(self.metadata.list_referrers(query).await?, REFERRERS_MAX);
        let mut bytes = 0;
        let fitting = page.items.iter().take_while(|referrer| {
            bytes += referrer.descriptor.len() + 1;
            bytes <= REFERRERS_BYTES_MAX
        });
        // One always goes out, or nobody would get past it.
        let fitting = fitting.count().max(1);
        if fitting < page.items.len() {
            page.items.truncate(fitting);
            page.more = true;
        }
        Ok(page)
    }
}
