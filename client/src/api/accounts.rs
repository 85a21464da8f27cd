//! Users, groups, robots' tokens, grants.

use oci::access::{Actions, RepoPattern};
use serde::{Deserialize, Serialize};

/// `GET /api/v1/whoami`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoAmI {
    pub name: String,
    /// Whether the caller has shown who it is.
    pub authenticated: bool,
    pub admin: bool,
    /// Whether the server has accounts.
    pub guarded: bool,
}

/// `GET /api/v1/users`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserInfo {
    pub name: String,
    pub admin: bool,
    pub disabled: bool,
    /// Whether the user can log in by password.
    pub password: bool,
    pub groups: Vec<String>,
}

/// `POST /api/v1/users`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewUser {
    pub name: String,
    /// None: no log-in by password; for users whom certificates stand for.
    #[serde(default)]
    pub password: Option<String>,
    #[serde(default)]
    pub admin: bool,
}

/// `PATCH /api/v1/users/{name}`; what is left out stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ChangeUser {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

/// `GET /api/v1/groups`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupInfo {
    pub name: String,
    pub members: Vec<String>,
}

/// Repositories and what may be done with them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenScope {
    pub pattern: RepoPattern,
    pub actions: Actions,
}

/// `POST /api/v1/tokens`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewToken {
    pub name: String,
    /// The token does what both this and its owner's grants allow.
    pub scopes: Vec<TokenScope>,
    #[serde(default)]
    pub expires_in_seconds: Option<u64>,
    /// An administrator may make tokens for others.
    #[serde(default)]
    pub owner: Option<String>,
}

/// The only time that a token is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TokenCreated {
    pub name: String,
    pub token: String,
}

/// `GET /api/v1/tokens`; times as in RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    pub name: String,
    /// Empty: the server's own.
    pub owner: String,
    pub scopes: Vec<TokenScope>,
    pub created_at: String,
    #[serde(default)]
    pub expires_at: Option<String>,
    #[serde(default)]
    pub last_used_at: Option<String>,
}

/// `GET` and `PUT /api/v1/grants`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantInfo {
    /// `user:NAME`, `group:NAME`, `anonymous` or `authenticated`.
    pub subject: String,
    pub pattern: RepoPattern,
    pub actions: Actions,
    /// Whether the configuration says it, so that it can't be changed here.
    #[serde(default)]
    pub configured: bool,
}
