//! Accounts: users, groups, robots' tokens and grants, and the keys that replicas share.
//!
//! Nothing here is read a request: servers hold all of it in memory and look at [`Accounts::policy_version`], which
//! every change raises in its own transaction.

use async_trait::async_trait;
use oci::RepoName;
use oci::access::NameRange;

use super::Result;

#[async_trait]
pub(crate) trait Accounts: Send + Sync {
    async fn policy_version(&self) -> Result<i64>;
    /// Everything, as of one moment.
    async fn accounts(&self) -> Result<AccountRows>;
    /// Durable. False: the name is taken.
    async fn add_user(&self, user: UserRow) -> Result<bool>;
    /// Durable. False: there is no such user.
    async fn change_user(&self, name: &str, change: UserChange) -> Result<bool>;
    /// Ends a user with its memberships, grants and tokens. Durable. False: there is no such user.
    async fn delete_user(&self, name: &str) -> Result<bool>;
    /// Makes the group if it isn't there. Durable. False: it was a member already.
    async fn add_member(&self, group: &str, member: &str) -> Result<bool>;
    /// Durable. False: it was no member.
    async fn remove_member(&self, group: &str, member: &str) -> Result<bool>;
    /// Ends a group with its grants. Durable. False: there is no such group.
    async fn delete_group(&self, name: &str) -> Result<bool>;
    /// Durable. False: the name is taken.
    async fn add_token(&self, token: TokenRow) -> Result<bool>;
    /// Durable. False: there is no such token.
    async fn delete_token(&self, name: &str) -> Result<bool>;
    /// Notes when tokens were used last, by name. Not durable, and no change of the policy.
    async fn touch_tokens(&self, used: &[(String, i64)]) -> Result<()>;
    /// Sets what a subject may do with a pattern, replacing what it was. Durable.
    async fn put_grant(&self, grant: GrantRow) -> Result<()>;
    /// Durable. False: there is no such grant.
    async fn delete_grant(&self, subject: &str, pattern: &str) -> Result<bool>;
    /// The secret of a name: the first `fresh` value that anybody offered. Durable.
    async fn shared_secret(&self, name: &str, fresh: &[u8]) -> Result<Vec<u8>>;
    /// Up to `limit` repositories in a range that have manifests, in byte order, after a name.
    async fn list_repositories_in(&self, range: &NameRange, after: &str, limit: u32)
    -> Result<Vec<RepoName>>;
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AccountRows {
    pub(crate) version: i64,
    pub(crate) users: Vec<UserRow>,
    /// All groups, also empty ones, by name.
    pub(crate) groups: Vec<String>,
    /// Group and member.
    pub(crate) members: Vec<(String, String)>,
    pub(crate) tokens: Vec<TokenRow>,
    pub(crate) grants: Vec<GrantRow>,
}

/// Times are microseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UserRow {
    pub(crate) name: String,
    /// None: no log-in by password.
    pub(crate) password_hash: Option<String>,
    pub(crate) admin: bool,
    pub(crate) disabled_at: Option<i64>,
    pub(crate) created_at: i64,
}

/// What to change of a user; `None` leaves it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UserChange {
    pub(crate) password_hash: Option<String>,
    pub(crate) admin: Option<bool>,
    pub(crate) disabled: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenRow {
    pub(crate) name: String,
    pub(crate) sha256: Vec<u8>,
    pub(crate) owner: String,
    /// JSON.
    pub(crate) scopes: String,
    pub(crate) created_at: i64,
    pub(crate) expires_at: Option<i64>,
    pub(crate) last_used_at: Option<i64>,
}

/// `actions` as `pull,push`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GrantRow {
    pub(crate) subject: String,
    pub(crate) pattern: String,
    pub(crate) actions: String,
}

/// A statement that both databases understand, with its parameters.
pub(crate) struct Statement {
    pub(crate) sql: &'static str,
    pub(crate) values: Vec<Value>,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(String),
    MaybeText(Option<String>),
    Number(i64),
    MaybeNumber(Option<i64>),
    Bytes(Vec<u8>),
}

/// A change of the policy: what the first statement changes tells whether there was anything to do.
pub(crate) struct Change {
    pub(crate) doing: &'static str,
    pub(crate) statements: Vec<Statement>,
}

impl Change {
    fn new<const N: usize>(doing: &'static str, statements: [Statement; N]) -> Self {
        Self {
            doing,
            statements: Vec::from(statements),
        }
    }

    pub(crate) fn add_user(user: UserRow) -> Self {
        let values = [
            Value::Text(user.name),
            Value::MaybeText(user.password_hash),
            Value::Number(i64::from(user.admin)),
            Value::MaybeNumber(user.disabled_at),
            Value::Number(user.created_at),
        ];
        Self::new("adding a user", [Statement::new(sql::ADD_USER, values)])
    }

    pub(crate) fn change_user(name: &str, change: UserChange, now: i64) -> Self {
        let values = [
            Value::Text(name.to_owned()),
            Value::MaybeText(change.password_hash),
            Value::MaybeNumber(change.admin.map(i64::from)),
            Value::MaybeNumber(change.disabled.map(i64::from)),
            Value::Number(now),
        ];
        Self::new("changing a user", [Statement::new(sql::CHANGE_USER, values)])
    }

    pub(crate) fn delete_user(name: &str) -> Self {
        let subject = format!("user:{name}");
        Self::new(
            "deleting a user",
            [
                Statement::texts(sql::DELETE_USER, [name]),
                Statement::texts(sql::FORGET_MEMBER, [name]),
                Statement::texts(sql::FORGET_OWNER, [name]),
                Statement::texts(sql::FORGET_SUBJECT, [&subject]),
            ],
        )
    }

    pub(crate) fn add_group(name: &str) -> Self {
        Self::new("adding a group", [Statement::texts(sql::ADD_GROUP, [name])])
    }

    pub(crate) fn add_member(group: &str, member: &str) -> Self {
        Self::new(
            "adding a member",
            [Statement::texts(sql::ADD_MEMBER, [group, member])],
        )
    }

    pub(crate) fn remove_member(group: &str, member: &str) -> Self {
        Self::new(
            "removing a member",
            [Statement::texts(sql::REMOVE_MEMBER, [group, member])],
        )
    }

    pub(crate) fn delete_group(name: &str) -> Self {
        let subject = format!("group:{name}");
        Self::new(
            "deleting a group",
            [
                Statement::texts(sql::DELETE_GROUP, [name]),
                Statement::texts(sql::FORGET_SUBJECT, [&subject]),
            ],
        )
    }

    pub(crate) fn add_token(token: TokenRow) -> Self {
        let values = [
            Value::Text(token.name),
            Value::Bytes(token.sha256),
            Value::Text(token.owner),
            Value::Text(token.scopes),
            Value::Number(token.created_at),
            Value::MaybeNumber(token.expires_at),
        ];
        Self::new("adding a token", [Statement::new(sql::ADD_TOKEN, values)])
    }

    pub(crate) fn delete_token(name: &str) -> Self {
        Self::new("deleting a token", [Statement::texts(sql::DELETE_TOKEN, [name])])
    }

    pub(crate) fn put_grant(grant: &GrantRow) -> Self {
        let texts = [grant.subject.as_str(), &grant.pattern, &grant.actions];
        Self::new("storing a grant", [Statement::texts(sql::PUT_GRANT, texts)])
    }

    pub(crate) fn delete_grant(subject: &str, pattern: &str) -> Self {
        Self::new(
            "deleting a grant",
            [Statement::texts(sql::DELETE_GRANT, [subject, pattern])],
        )
    }
}

impl Statement {
    fn new<const N: usize>(sql: &'static str, values: [Value; N]) -> Self {
        Self {
            sql,
            values: Vec::from(values),
        }
    }

    fn texts<const N: usize>(sql: &'static str, texts: [&str; N]) -> Self {
        Self::new(sql, texts.map(|text| Value::Text(text.to_owned())))
    }
}

pub(crate) type UserTuple = (String, Option<String>, i64, Option<i64>, i64);
pub(crate) type TokenTuple = (String, Vec<u8>, String, String, i64, Option<i64>, Option<i64>);

impl From<UserTuple> for UserRow {
    fn from((name, password_hash, admin, disabled_at, created_at): UserTuple) -> Self {
        Self {
            name,
            password_hash,
            admin: admin != 0,
            disabled_at,
            created_at,
        }
    }
}

impl From<TokenTuple> for TokenRow {
    fn from(row: TokenTuple) -> Self {
        let (name, sha256, owner, scopes, created_at, expires_at, last_used_at) = row;
        Self {
            name,
            sha256,
            owner,
            scopes,
            created_at,
            expires_at,
            last_used_at,
        }
    }
}

impl From<(String, String, String)> for GrantRow {
    fn from((subject, pattern, actions): (String, String, String)) -> Self {
        Self {
            subject,
            pattern,
            actions,
        }
    }
}

/// The statements that both databases understand. Parameters are `$1` …; the version is raised with each change.
pub(crate) mod sql {
    pub(crate) const BUMP: &str = "UPDATE store SET policy_version = policy_version + 1";
    pub(crate) const VERSION: &str = "SELECT policy_version FROM store";
    pub(crate) const USERS: &str =
        "SELECT name, password_hash, admin, disabled_at, created_at FROM users ORDER BY name";
    pub(crate) const GROUPS: &str = "SELECT name FROM groups ORDER BY name";
    pub(crate) const MEMBERS: &str =
        "SELECT g.name, m.member FROM group_members m JOIN groups g ON g.id = m.group_id
         ORDER BY g.name, m.member";
    pub(crate) const TOKENS: &str = "SELECT name, sha256, owner, scopes, created_at, expires_at, last_used_at
         FROM tokens ORDER BY name";
    pub(crate) const GRANTS: &str = "SELECT subject, pattern, actions FROM grants ORDER BY subject, pattern";
    pub(crate) const ADD_USER: &str =
        "INSERT INTO users (name, password_hash, admin, disabled_at, created_at)
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) DO NOTHING";
    /// `$3`: 0, 1 or NULL; `$4`: 0 clears, NULL leaves.
    pub(crate) const CHANGE_USER: &str = "UPDATE users SET
             password_hash = coalesce($2, password_hash), admin = coalesce(CAST($3 AS BIGINT), admin),
             disabled_at = CASE WHEN CAST($4 AS BIGINT) IS NULL THEN disabled_at
                 WHEN CAST($4 AS BIGINT) = 0 THEN NULL ELSE coalesce(disabled_at, CAST($5 AS BIGINT)) END
         WHERE name = $1";
    pub(crate) const DELETE_USER: &str = "DELETE FROM users WHERE name = $1";
    pub(crate) const FORGET_MEMBER: &str = "DELETE FROM group_members WHERE member = $1";
    pub(crate) const FORGET_OWNER: &str = "DELETE FROM tokens WHERE owner = $1";
    pub(crate) const FORGET_SUBJECT: &str = "DELETE FROM grants WHERE subject = $1";
    pub(crate) const ADD_GROUP: &str = "INSERT INTO groups (name) VALUES ($1) ON CONFLICT (name) DO NOTHING";
    pub(crate) const ADD_MEMBER: &str = "INSERT INTO group_members (group_id, member)
         SELECT id, CAST($2 AS TEXT) FROM groups WHERE name = $1 ON CONFLICT (group_id, member) DO NOTHING";
    pub(crate) const REMOVE_MEMBER: &str = "DELETE FROM group_members
         WHERE group_id = (SELECT id FROM groups WHERE name = $1) AND member = $2";
    pub(crate) const DELETE_GROUP: &str = "DELETE FROM groups WHERE name = $1";
    pub(crate) const ADD_TOKEN: &str =
        "INSERT INTO tokens (name, sha256, owner, scopes, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (name) DO NOTHING";
    pub(crate) const DELETE_TOKEN: &str = "DELETE FROM tokens WHERE name = $1";
    pub(crate) const TOUCH_TOKEN: &str = "UPDATE tokens SET last_used_at = $2 WHERE name = $1";
    pub(crate) const PUT_GRANT: &str = "INSERT INTO grants (subject, pattern, actions) VALUES ($1, $2, $3)
         ON CONFLICT (subject, pattern) DO UPDATE SET actions = excluded.actions";
    pub(crate) const DELETE_GRANT: &str = "DELETE FROM grants WHERE subject = $1 AND pattern = $2";
    pub(crate) const ADD_SECRET: &str = "INSERT INTO secrets (name, value, created_at) VALUES ($1, $2, $3)
         ON CONFLICT (name) DO NOTHING";
    pub(crate) const SECRET: &str = "SELECT value FROM secrets WHERE name = $1";
    pub(crate) const REPOSITORIES_IN: &str = "SELECT name FROM repositories
         WHERE manifest_count > 0 AND deleted_at IS NULL AND name > $1 AND name >= $2 AND name < $3
         ORDER BY name LIMIT $4";
}
