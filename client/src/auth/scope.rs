//! What a token is asked for: `repository:NAME:pull,push` (distribution's token scope grammar).

use std::collections::{BTreeMap, BTreeSet};

use oci::RepoName;

/// A set of resources with the actions wanted on each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Scopes(BTreeMap<String, BTreeSet<String>>);

impl Scopes {
    pub(crate) fn pull(repository: &RepoName) -> Self {
        Self::default().with(format!("repository:{repository}"), &["pull"])
    }

    pub(crate) fn push(repository: &RepoName) -> Self {
        Self::default().with(format!("repository:{repository}"), &["pull", "push"])
    }

    pub(crate) fn delete(repository: &RepoName) -> Self {
        Self::default().with(format!("repository:{repository}"), &["pull", "delete"])
    }

    pub(crate) fn catalog() -> Self {
        Self::default().with("registry:catalog".to_owned(), &["*"])
    }

    /// All that both want.
    pub(crate) fn and(mut self, other: Self) -> Self {
        for (resource, actions) in other.0 {
            self.0.entry(resource).or_default().extend(actions);
        }
        self
    }

    /// Reads a challenge's scope, which may hold several separated by spaces; what is malformed is left out.
    pub(super) fn parse(text: &str) -> Self {
        let mut scopes = Self::default();
        for scope in text.split_whitespace() {
            // A resource's name may hold `:` (a host's port); the actions never do.
            let Some((resource, actions)) = scope.rsplit_once(':') else {
                continue;
            };
            let actions: Vec<&str> = actions.split(',').filter(|action| !action.is_empty()).collect();
            scopes = scopes.with(resource.to_owned(), &actions);
        }
        scopes
    }

    /// Each resource's scope as a token request carries it.
    pub(super) fn texts(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|(resource, actions)| {
                let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
                format!("{resource}:{}", actions.join(","))
            })
            .collect()
    }

    fn with(mut self, resource: String, actions: &[&str]) -> Self {
        let entry = self.0.entry(resource).or_default();
        entry.extend(actions.iter().map(|&action| action.to_owned()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_merge_by_resource() {
        let target: RepoName = "team/app".parse().unwrap();
        let source: RepoName = "team/base".parse().unwrap();
        let mount = Scopes::push(&target).and(Scopes::pull(&source));
        let asked = Scopes::parse("repository:team/app:pull  repository:h:5000/x:push,pull broken");
        assert_eq!(
            mount.and(asked).texts(),
            [
                "repository:h:5000/x:pull,push",
                "repository:team/app:pull,push",
                "repository:team/base:pull"
            ]
        );
    }
}
