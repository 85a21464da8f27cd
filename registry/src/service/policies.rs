//! Policies: what may be done where, beside who may do it. Refusals name the rule.

mod quotas;
mod retention;

use oci::{RepoName, Tag};

use super::{Registry, RegistryError, Result};
use crate::config::{Policy, TagPattern};
use quotas::Reservations;

/// The rules of a server.
#[derive(Default)]
pub(crate) struct Policies {
    read_only: bool,
    rules: Vec<Policy>,
    reservations: Reservations,
}

impl Policies {
    pub(crate) fn new(read_only: bool, rules: Vec<Policy>) -> Self {
        Self {
            read_only,
            rules,
            reservations: Reservations::default(),
        }
    }

    fn of<'p, 'r>(&'p self, repository: &'r RepoName) -> impl Iterator<Item = &'p Policy> + use<'p, 'r> {
        self.rules.iter().filter(move |rule| rule.is_for(repository))
    }

    /// The rule that keeps a tag where it is.
    fn keeper(&self, repository: &RepoName, tag: &str) -> Option<&str> {
        self.of(repository)
            .find(|rule| rule.immutable_tags.iter().any(|pattern| pattern.matches(tag)))
            .map(|rule| rule.name.as_str())
    }

    /// The rule that lets nobody change the repository, other rules included.
    fn closer(&self, repository: &RepoName) -> Option<&str> {
        if self.read_only {
            return Some("read_only");
        }
        self.of(repository)
            .find(|rule| rule.read_only)
            .map(|rule| rule.name.as_str())
    }

    /// Patterns of tags that may not be moved or deleted.
    pub(super) fn immutable_patterns(&self, repository: &RepoName) -> Vec<TagPattern> {
        self.of(repository)
            .flat_map(|rule| rule.immutable_tags.iter().cloned())
            .collect()
    }
}

impl Registry {
    /// Passes where the repository may be changed.
    pub(super) fn require_writable(&self, repository: &RepoName) -> Result<()> {
        let rule = self.policies.closer(repository);
        match rule {
            None => Ok(()),
            Some(rule) => Err(RegistryError::Policy {
                rule: rule.to_owned(),
                reason: format!("repository {repository} is read-only"),
            }),
        }
    }

    /// Those of `tags` that name for ever what they named first.
    pub(super) fn immutable(&self, repository: &RepoName, tags: &[Tag]) -> Vec<Tag> {
        let immutable = |tag: &&Tag| self.policies.keeper(repository, tag.as_str()).is_some();
        tags.iter().filter(immutable).cloned().collect()
    }

    pub(super) fn immutable_error(&self, repository: &RepoName, tag: &Tag) -> RegistryError {
        let rule = self
            .policies
            .keeper(repository, tag.as_str())
            .unwrap_or("immutable_tags");
        RegistryError::Policy {
            rule: rule.to_owned(),
            reason: format!(
                "tag {tag} of repository {repository} is immutable: it can't be moved or deleted"
            ),
        }
    }
}
