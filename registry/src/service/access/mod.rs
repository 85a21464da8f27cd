//! Who is asking, and what they may do.
//!
//! A request comes with nothing, a password, a token or a certificate; [`Gate::authenticate`] makes a [`Principal`] of
//! it, which every operation asks ([`Principal::may`]). All accounts and grants are in memory as one [`policy::Policy`],
//! made anew whenever `policy_version` or a file has changed, so that a request costs map look-ups and no query.

mod audit;
mod external;
mod foreign;
mod gate;
mod htpasswd;
mod limiter;
mod login;
mod manage;
mod oidc;
mod password;
pub(crate) mod policy;
mod proof;
mod rules;
mod signer;
mod token_service;
mod workers;

use std::fmt;
use std::sync::Arc;

use oci::RepoName;
pub(crate) use oci::access::Action;

pub(crate) use audit::Audit;
pub(crate) use gate::{AccessError, Arrival, Gate, Shown};
pub(crate) use limiter::network;
pub(crate) use manage::ManageError;
pub(crate) use rules::{Rules, Scope};
pub(crate) use token_service::{GrantedToken, TokenRequest};
pub(crate) use workers::{BuildGrant, Tokens};

/// A caller whose credentials were checked.
#[derive(Clone, Debug)]
pub(crate) enum Principal {
    Client(Arc<Client>),
    /// The worker on behalf of one running build.
    Build(Arc<BuildGrant>),
    /// The worker itself: leases jobs, nothing else.
    Worker,
}

/// Somebody outside this server, with what they may do.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) identity: Identity,
    /// What the policy gives them.
    rules: Arc<Rules>,
    /// What a robot's token is cut down to.
    cut: Option<Arc<Rules>>,
    /// What the token they came with was asked for.
    scope: Option<Arc<Scope>>,
    admin: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    Anonymous,
    User(String),
    /// A robot's token by its name.
    Robot(String),
    /// A CI job, by its provider and the subject that it names.
    Federated {
        provider: String,
        subject: String,
    },
    /// By a token of the external token service.
    External(String),
    /// Whoever can read the server's run directory.
    Local,
}

impl Principal {
    pub(crate) fn may(&self, action: Action, repository: &RepoName) -> bool {
        match self {
            Self::Client(client) => client.may(action, repository),
            Self::Build(grant) => grant.may(action, repository),
            Self::Worker => false,
        }
    }

    /// Whether lists of repositories show it. A token for listing names no repositories.
    pub(crate) fn may_see(&self, repository: &RepoName) -> bool {
        match self {
            Self::Client(client) => client.may_unscoped(Action::Pull, repository),
            other => other.may(Action::Pull, repository),
        }
    }

    /// Whether it may send what builds are made of; where a build writes is checked with the build.
    pub(crate) fn may_build(&self) -> bool {
        matches!(self, Self::Client(client) if client.may_somewhere(Action::Push))
    }

    /// Whether it may do anything at all.
    pub(crate) fn may_anything(&self) -> bool {
        let actions = [Action::Pull, Action::Push, Action::Delete, Action::Admin];
        match self {
            Self::Client(client) => actions.iter().any(|action| client.may_somewhere(*action)),
            Self::Build(_) | Self::Worker => true,
        }
    }

    /// Whether it may run the whole server: accounts, collection, integrity.
    pub(crate) fn is_admin(&self) -> bool {
        matches!(self, Self::Client(client) if client.is_admin())
    }

    /// Whether it has shown who it is.
    pub(crate) fn is_authenticated(&self) -> bool {
        !matches!(self, Self::Client(client) if client.identity == Identity::Anonymous)
    }

    pub(crate) fn client(&self) -> Option<&Arc<Client>> {
        match self {
            Self::Client(client) => Some(client),
            Self::Build(_) | Self::Worker => None,
        }
    }

    /// The name under which its doings are recorded.
    pub(crate) fn actor(&self) -> String {
        match self {
            Self::Client(client) => client.identity.to_string(),
            Self::Build(grant) => format!("build:{}", grant.build),
            Self::Worker => "worker".to_owned(),
        }
    }
}

impl Client {
    pub(crate) fn new(identity: Identity, rules: Arc<Rules>) -> Self {
        let admin = rules.is_admin();
        Self {
            identity,
            rules,
            cut: None,
            scope: None,
            admin,
        }
    }

    pub(crate) fn may(&self, action: Action, repository: &RepoName) -> bool {
        self.may_unscoped(action, repository)
            && self
                .scope
                .as_ref()
                .is_none_or(|scope| scope.allows(action, repository))
    }

    /// Whether another token could allow it.
    pub(crate) fn may_unscoped(&self, action: Action, repository: &RepoName) -> bool {
        self.rules.allow(action, repository)
            && self.cut.as_ref().is_none_or(|cut| cut.allow(action, repository))
    }

    /// Whether there can be a repository where it is allowed, by all that it came with.
    fn may_somewhere(&self, action: Action) -> bool {
        self.rules.any(action)
            && self.cut.as_ref().is_none_or(|cut| cut.any(action))
            && self.scope.as_ref().is_none_or(|scope| scope.any(action))
    }

    pub(crate) fn is_admin(&self) -> bool {
        self.admin
            && self.cut.as_ref().is_none_or(|cut| cut.is_admin())
            && self.scope.as_ref().is_none_or(|scope| scope.everything)
    }

    /// Whether nothing that it came with is for less than all that its identity may do.
    pub(super) fn is_whole(&self) -> bool {
        self.cut.is_none() && self.scope.as_ref().is_none_or(|scope| scope.everything)
    }

    /// Whether it may list repositories, those that it may pull.
    pub(crate) fn may_list(&self) -> bool {
        self.scope
            .as_ref()
            .is_none_or(|scope| scope.catalog || scope.everything)
    }

    /// Where the repositories that it may pull are.
    pub(crate) fn pull_ranges(&self) -> Vec<oci::access::NameRange> {
        self.cut.as_ref().unwrap_or(&self.rules).ranges(Action::Pull)
    }

    fn admin(mut self) -> Self {
        self.admin = true;
        self.rules = Arc::new(Rules::everything());
        self
    }

    fn cut(mut self, cut: Arc<Rules>) -> Self {
        self.cut = Some(cut);
        self
    }

    fn scoped(&self, scope: Arc<Scope>) -> Self {
        Self {
            scope: Some(scope),
            ..self.clone()
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::User(name) => f.write_str(name),
            Self::Robot(name) => write!(f, "token:{name}"),
            Self::Federated { provider, subject } => write!(f, "{provider}:{subject}"),
            Self::External(subject) => write!(f, "external:{subject}"),
            Self::Local => f.write_str("local administrator"),
        }
    }
}
