//! The tokens of this server's build worker and of the builds it runs. They count on the worker's unix socket alone.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use oci::{Digest, RepoName};
use parking_lot::{Mutex, RwLock};

use super::{Action, Client, Principal};

/// What a build may do: what its creator may, but push and keep its step cache in the named repositories alone.
#[derive(Debug)]
pub(crate) struct BuildGrant {
    pub(crate) build: String,
    /// Renewed with every request, so that who loses rights loses them in running builds too.
    pub(crate) creator: ArcSwap<Client>,
    pub(crate) push: BTreeSet<RepoName>,
    /// Also allowed to push, since cached layers lie there.
    pub(crate) cache: RepoName,
    /// Copies of other registries' images that this build has asked for, and was let have by those registries.
    pub(crate) fetched: Mutex<BTreeSet<RepoName>>,
}

impl BuildGrant {
    pub(crate) fn may(&self, action: Action, repository: &RepoName) -> bool {
        let own = self.cache == *repository || self.push.contains(repository);
        match action {
            Action::Pull => {
                own || self.creator.load().may(Action::Pull, repository)
                    || self.fetched.lock().contains(repository)
            }
            Action::Push => own,
            Action::Delete | Action::Admin => false,
        }
    }
}

/// The bearer tokens that are valid now. Only their hashes are kept, so looking one up leaks nothing by its timing.
pub(crate) struct Tokens {
    worker: String,
    valid: RwLock<HashMap<Digest, Principal>>,
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

pub(super) fn random_token() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::access::Actions;

    use crate::service::access::{Identity, Rules};

    #[test]
    fn a_build_pushes_where_it_was_granted_and_deletes_nowhere() {
        let tokens = Tokens::new();
        let names: Vec<RepoName> = ["app", "cache", "other", "private", "docker.io/library/x"]
            .iter()
            .map(|name| name.parse().unwrap())
            .collect();
        let rules = Rules::of([
            ("other".parse().unwrap(), Actions::ALL),
            ("cache".parse().unwrap(), Actions::NONE),
        ]);
        let grant = BuildGrant {
            build: "b1".to_owned(),
            creator: ArcSwap::from_pointee(Client::new(Identity::Anonymous, Arc::new(rules))),
            push: BTreeSet::from([names[0].clone()]),
            cache: names[1].clone(),
            fetched: Mutex::default(),
        };
        let token = tokens.issue(grant);
        let principal = tokens.find(&token).unwrap();
        let may = |action| {
            names
                .iter()
                .map(|name| principal.may(action, name))
                .collect::<Vec<_>>()
        };
        assert_eq!(may(Action::Pull), [true, true, true, false, false]);
        assert_eq!(may(Action::Push), [true, true, false, false, false]);
        assert_eq!(may(Action::Delete), [false; 5]);
        assert_eq!(may(Action::Admin), [false; 5]);
        assert!(!principal.is_admin());
        let Principal::Build(grant) = &principal else {
            panic!("a build's token is a build's")
        };
        grant.fetched.lock().insert(names[4].clone());
        assert!(principal.may(Action::Pull, &names[4]));
        tokens.revoke("b1");
        assert!(tokens.find(&token).is_none());
        assert!(matches!(tokens.find(tokens.worker()), Some(Principal::Worker)));
    }
}
