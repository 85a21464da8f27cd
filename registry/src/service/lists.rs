//! Pages of tags, repositories and referrers.

use oci::access::RepoPattern;
use oci::{Digest, RepoName, Tag};

use super::{Principal, Registry, RegistryError, Result};
use crate::metadata::{Referrer, ReferrersQuery};
use crate::traces::Traced as _;

/// Referrers in one page at most …
const REFERRERS_MAX: u32 = 1000;
/// … and their bytes: below the 4 MiB that clients accept as a manifest.
const REFERRERS_BYTES_MAX: usize = 3_500_000;

/// Names that one page of the catalog looks at.
const SCANNED_MAX: usize = 10_000;

/// A page of the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repositories {
    pub(crate) items: Vec<RepoName>,
    /// Where the next page begins after; none: this was the last.
    pub(crate) next: Option<String>,
}

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
        let listing = self.metadata.list_tags(repository, after, limit + 1);
        let tags = listing.within(self.query("list_tags")).await?;
        let tags = tags.ok_or_else(|| RegistryError::NameUnknown(repository.clone()))?;
        Ok(Page::cut(tags, limit))
    }

    /// The repositories that a caller may pull, in order. They lie in few ranges of the names, walked one after the
    /// other; a page that finds little among much ends early.
    pub(crate) async fn repositories(
        &self,
        principal: &Principal,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Repositories> {
        let ranges = match principal.client() {
            Some(client) => client.pull_ranges(),
            None => vec![RepoPattern::all().range()],
        };
        let mut found = Repositories {
            items: Vec::new(),
            next: None,
        };
        let mut after = after.unwrap_or_default().to_owned();
        let mut scanned = 0;
        for range in ranges {
            loop {
                // One more than fits tells whether there is a next page.
                let wanted = (limit as usize + 1 - found.items.len()).min(SCANNED_MAX - scanned) as u32;
                let listing = self.metadata.list_repositories_in(&range, &after, wanted);
                let names = listing.within(self.query("list_repositories")).await?;
                let short = names.len() < wanted as usize;
                scanned += names.len();
                for name in names {
                    after.clear();
                    after.push_str(name.as_str());
                    if principal.may_see(&name) {
                        found.items.push(name);
                    }
                }
                if found.items.len() > limit as usize {
                    found.items.truncate(limit as usize);
                    found.next = found.items.last().map(ToString::to_string);
                    return Ok(found);
                }
                if short {
                    break;
                }
                if scanned >= SCANNED_MAX {
                    found.next = Some(after);
                    return Ok(found);
                }
            }
        }
        Ok(found)
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
        let listing = self.metadata.list_referrers(query);
        let referrers = listing.within(self.query("list_referrers")).await?;
        let mut page = Page::cut(referrers, REFERRERS_MAX);
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
