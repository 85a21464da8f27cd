//! What was checked of a caller, and what it is worth under the policy of now.

use std::sync::Arc;

use super::policy::Policy;
use super::rules::{Rules, Scope};
use super::signer::Claims;
use super::{Client, Identity};

/// What was checked.
#[derive(Debug)]
pub(super) enum Proof {
    /// Nothing was shown.
    None,
    Certificate(String),
    Password {
        user: String,
        version: String,
    },
    Robot {
        name: String,
        version: String,
    },
    /// A token of ours.
    Token(Box<Claims>),
    /// Somebody else's token: what it says is all that is known.
    Foreign(Arc<Client>),
}

/// What a proof is worth now.
pub(super) fn derive(proof: &Proof, policy: &Policy) -> Option<Arc<Client>> {
    match proof {
        Proof::None => Some(policy.anonymous()),
        Proof::Certificate(user) => policy.user(user),
        Proof::Password { user, version } => {
            let same = policy
                .password(user)
                .is_some_and(|stored| stored.version() == *version);
            same.then(|| policy.user(user)).flatten()
        }
        Proof::Robot { name, version } => {
            let same = policy.credential_version(&Identity::Robot(name.clone())) == *version;
            let robot = policy.robot_named(name).filter(|_| same)?;
            policy.robot_client(robot).map(Arc::new)
        }
        Proof::Token(claims) => {
            let client = bearer_of(claims, policy)?;
            let scope = Scope::of_claims(&claims.access);
            Some(Arc::new(client.scoped(Arc::new(scope))))
        }
        Proof::Foreign(client) => Some(Arc::clone(client)),
    }
}

/// Who a token of ours was made for, with all that they may do now.
pub(super) fn bearer_of(claims: &Claims, policy: &Policy) -> Option<Arc<Client>> {
    let identity = claims.identity()?;
    if policy.credential_version(&identity) != claims.credential {
        return None;
    }
    match &identity {
        Identity::Anonymous => Some(policy.anonymous()),
        Identity::User(name) => policy.user(name),
        Identity::Robot(name) => {
            let robot = policy.robot_named(name)?;
            policy.robot_client(robot).map(Arc::new)
        }
        Identity::Federated { .. } => {
            let rules = claims.rules.iter();
            let rules = Rules::of(rules.map(|rule| (rule.pattern.clone(), rule.actions)));
            Some(Arc::new(Client::new(identity, Arc::new(rules))))
        }
        Identity::External(_) | Identity::Local => None,
    }
}
