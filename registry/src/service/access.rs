//! Who is asking, and what they may do.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use oci::{Digest, RepoName};
use parking_lot::RwLock;

use crate::config::Anonymous;

/// A caller whose credentials were checked.
#[derive(Clone, Debug)]
pub(crate) enum Principal {
    Anonymous(Anonymous),
    /// The worker on behalf of one running build.
    Build(Arc<BuildGrant>),
    /// The worker itself: leases jobs, nothing else.
    Worker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Pull,
    Push,
    Delete,
    /// Rules, restoring, and what else concerns those who run a repository.
    Admin,
}

/// What a build may do: pull anywhere, push and keep its step cache in named repositories.
#[derive(Clone, Debug)]
pub(crate) struct BuildGrant {
    pub(crate) build: String,
    pub(crate) push: BTreeSet<RepoName>,
    /// Also allowed to push, since cached layers lie there.
    pub(crate) cache: RepoName,
}

/// The bearer tokens that are valid now. Only their hashes are kept, so looking one up leaks nothing by its timing.
pub(crate) struct Tokens {
    worker: String,
    valid: RwLock<HashMap<Digest, Principal>>,
}

impl Principal {
    pub(crate) fn may(&self, action: Action, repository: &RepoName) -> bool {
        match (self, action) {
            (Self::Anonymous(Anonymous::ReadWrite), _)
            | (Self::Anonymous(Anonymous::ReadOnly) | Self::Build(_), Action::Pull) => true,
            (Self::Build(grant), Action::Push) => {
                grant.cache == *repository || grant.push.contains(repository)
            }
            (Self::Anonymous(Anonymous::ReadOnly) | Self::Build(_), _) | (Self::Worker, _) => false,
        }
    }

    /// Whether it may send what builds are made of; where a build writes is checked with the build.
    pub(crate) fn may_build(&self) -> bool {
        matches!(self, Self::Anonymous(Anonymous::ReadWrite))
    }

    /// Whether it may run the whole server: accounts, collection, integrity.
    pub(crate) fn is_admin(&self) -> bool {
        matches!(self, Self::Anonymous(Anonymous::ReadWrite))
    }

    /// The name under which its doings are recorded.
    pub(crate) fn actor(&self) -> String {
        match self {
            Self::Anonymous(_) => "anonymous".to_owned(),
            Self::Build(grant) => format!("build:{}", grant.build),
            Self::Worker => "worker".to_owned(),
        }
    }
}

impl Tokens {
    pub(crate) fn new() -> Self {
        let worker = random_token();
        let valid = HashMap::from([(Digest::sha256(worker.as_bytes()), Principal::Worker)]);
        Self {
            worker,
            valid: RwLock::new(valid),
        }
    }

    /// The worker's own token, made anew at every start of the server.
    pub(crate) fn worker(&self) -> &str {
        &self.worker
    }

    /// Makes a token for a build.
    pub(crate) fn issue(&self, grant: BuildGrant) -> String {
        let token = random_token();
        let principal = Principal::Build(Arc::new(grant));
        self.valid
            .write()
            .insert(Digest::sha256(token.as_bytes()), principal);
        token
    }

    /// Ends every token of a build.
    pub(crate) fn revoke(&self, build: &str) {
        self.valid
            .write()
            .retain(|_, principal| !matches!(principal, Principal::Build(grant) if grant.build == build));
    }

    pub(crate) fn find(&self, token: &str) -> Option<Principal> {
        self.valid.read().get(&Digest::sha256(token.as_bytes())).cloned()
    }
}

fn random_token() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_pushes_where_it_was_granted_and_deletes_nowhere() {
        let tokens = Tokens::new();
        let names: Vec<RepoName> = ["app", "cache", "other"]
            .iter()
            .map(|name| name.parse().unwrap())
            .collect();
        let grant = BuildGrant {
            build: "b1".to_owned(),
            push: BTreeSet::from([names[0].clone()]),
            cache: names[1].clone(),
        };
        let token = tokens.issue(grant);
        let principal = tokens.find(&token).unwrap();
        let may = |action| {
            names
                .iter()
                .map(|name| principal.may(action, name))
                .collect::<Vec<_>>()
        };
        assert_eq!(may(Action::Pull), [true, true, true]);
        assert_eq!(may(Action::Push), [true, true, false]);
        assert_eq!(may(Action::Delete), [false, false, false]);
        assert_eq!(may(Action::Admin), [false, false, false]);
        assert!(!principal.is_admin());
        tokens.revoke("b1");
        assert!(tokens.find(&token).is_none());
        assert!(matches!(tokens.find(tokens.worker()), Some(Principal::Worker)));
    }
}
