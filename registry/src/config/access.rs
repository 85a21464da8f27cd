//! `[access]`: who may do what.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;
use oci::access::{Actions, RepoPattern};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ConfigError, require};

/// Who may do what. Users, groups, tokens and grants can also be kept in the database.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessConfig {
    /// What a caller without credentials may do. `None` is no decision: everything, on loopback listeners only, unless
    /// something else here decides; then nothing but what grants say.
    pub anonymous: Option<Anonymous>,
    /// A file of `NAME:HASH` lines, bcrypt or argon2, read again when it changes.
    pub htpasswd: Option<PathBuf>,
    /// Users who may do everything.
    pub admins: BTreeSet<String>,
    /// Groups and their members.
    pub groups: BTreeMap<String, BTreeSet<String>>,
    #[serde(rename = "grant")]
    pub grants: Vec<Grant>,
    /// Who may read /metrics.
    pub metrics: MetricsAccess,
    /// Proxies whose `X-Forwarded-For` is believed, for rate limits and the audit log.
    pub trusted_proxies: Vec<Network>,
    /// Where log-ins, refusals and changes are recorded, one JSON object a line; they are also in the log, as target
    /// `layeryard::audit`.
    pub audit_log: Option<PathBuf>,
    /// Passwords that are checked a minute for one address, and for one user.
    pub logins_per_minute: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Anonymous {
    /// Only what grants to `anonymous` say.
    None,
    ReadOnly,
    ReadWrite,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MetricsAccess {
    /// Everybody.
    Public,
    /// Everybody where there are no accounts, else everybody who shows who they are.
    #[default]
    Authenticated,
    Admin,
}

/// What somebody may do with some repositories.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    pub subject: Subject,
    pub repositories: Vec<RepoPattern>,
    pub actions: Actions,
}

/// Whom a grant is for: `user:NAME`, `group:NAME`, `anonymous` (everybody) or `authenticated`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    User(String),
    Group(String),
    Anonymous,
    Authenticated,
}

/// Addresses: `10.0.0.0/8`, or one alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("subject {0:?} is unknown: expected user:NAME, group:NAME, anonymous or authenticated")]
pub struct SubjectError(String);

impl AccessConfig {
    /// Whether anybody has said who may do what.
    pub fn is_decided(&self) -> bool {
        self.anonymous.is_some()
            || self.htpasswd.is_some()
            || !self.admins.is_empty()
            || !self.grants.is_empty()
    }

    /// Whether `address` may say for whom it asks.
    pub fn is_trusted_proxy(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|net| net.0.contains(&address))
    }

    pub(super) fn validate(&self, decided: bool, listen: &[SocketAddr]) -> Result<(), ConfigError> {
        require(
            self.logins_per_minute > 0,
            "access.logins_per_minute",
            "nobody could log in: give at least 1",
        )?;
        for grant in &self.grants {
            require(
                !grant.repositories.is_empty() && !grant.actions.is_empty(),
                "access.grant",
                format!(
                    "the one for {} names no repositories or no actions",
                    grant.subject
                ),
            )?;
        }
        let outside = listen.iter().find(|address| !address.ip().is_loopback());
        match outside {
            Some(address) if !decided => Err(ConfigError::AccessUndecided(*address)),
            _ => Ok(()),
        }
    }
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self {
            anonymous: None,
            htpasswd: None,
            admins: BTreeSet::new(),
            groups: BTreeMap::new(),
            grants: Vec::new(),
            metrics: MetricsAccess::default(),
            trusted_proxies: Vec::new(),
            audit_log: None,
            logins_per_minute: 30,
        }
    }
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        match text.split_once(':') {
            Some(("user", name)) if !name.is_empty() => Ok(Self::User(name.to_owned())),
            Some(("group", name)) if !name.is_empty() => Ok(Self::Group(name.to_owned())),
            None if text == "anonymous" => Ok(Self::Anonymous),
            None if text == "authenticated" => Ok(Self::Authenticated),
            _ => Err(SubjectError(text.to_owned())),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "user:{name}"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Anonymous => f.write_str("anonymous"),
            Self::Authenticated => f.write_str("authenticated"),
        }
    }
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let address = text.parse::<IpAddr>().map(IpNet::from);
        let network = address.or_else(|_| text.parse()).map(Self);
        network.map_err(|_| D::Error::custom(format!("{text:?} is no network such as 10.0.0.0/8")))
    }
}
