//! What administrators change: users, groups, tokens, grants. Users manage their own tokens.

use std::collections::BTreeMap;

use client::api::accounts::{
    ChangeUser, GrantInfo, GroupInfo, NewToken, NewUser, TokenCreated, TokenInfo, TokenScope, UserInfo,
};
use oci::Digest;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::gate::{Gate, GateError};
use super::login::ROBOT_PREFIX;
use super::password::PasswordError;
use super::policy::{SERVER_OWNED, now_micros};
use super::workers::random_token;
use super::{Identity, Principal};
use crate::config::Subject;
use crate::metadata::MetadataError;
use crate::metadata::accounts::{GrantRow, TokenRow, UserChange, UserRow};

const NAME_LEN_MAX: usize = 128;
const SCOPES_MAX: usize = 100;
/// Ten years, in seconds.
const TOKEN_LIFE_MAX_SECONDS: u64 = 10 * 366 * 24 * 3600;

type Result<T, E = ManageError> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ManageError {
    #[error("{kind} {name:?} is not known")]
    Unknown { kind: &'static str, name: String },
    #[error("{kind} {name:?} exists already")]
    Exists { kind: &'static str, name: String },
    #[error(
        "{kind} name {name:?} is invalid: 1 to {NAME_LEN_MAX} characters without `:`, `/`, spaces or control characters"
    )]
    Name { kind: &'static str, name: String },
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Password(PasswordError),
    #[error("{actor} may not do this: it takes the rights of an administrator")]
    Denied { actor: String },
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error(transparent)]
    Gate(#[from] GateError),
}

/// An administrator at work.
pub(crate) struct Manage<'a> {
    gate: &'a Gate,
    actor: String,
}

impl Gate {
    /// For callers who may run the whole server.
    pub(crate) fn manage(&self, principal: &Principal) -> Result<Manage<'_>> {
        let actor = principal.actor();
        if !principal.is_admin() {
            return Err(ManageError::Denied { actor });
        }
        Ok(Manage { gate: self, actor })
    }

    /// Everybody's tokens for administrators, else the caller's own.
    pub(crate) fn tokens(&self, principal: &Principal) -> Vec<TokenInfo> {
        let own = user_name(principal);
        let policy = self.policy.load();
        let rows = policy.rows.tokens.iter();
        let visible = rows.filter(|row| principal.is_admin() || Some(row.owner.as_str()) == own);
        visible.map(token_info).collect()
    }

    pub(crate) async fn create_token(&self, principal: &Principal, new: NewToken) -> Result<TokenCreated> {
        let actor = principal.actor();
        check_name("token", &new.name)?;
        let owner = match (&new.owner, user_name(principal)) {
            (None, Some(own)) => own.to_owned(),
            (Some(owner), Some(own)) if owner == own => own.to_owned(),
            (owner, _) if principal.is_admin() => owner.clone().unwrap_or_else(|| SERVER_OWNED.to_owned()),
            _ => return Err(ManageError::Denied { actor }),
        };
        if owner != SERVER_OWNED && !self.policy.load().knows(&owner) {
            return Err(ManageError::Unknown {
                kind: "user",
                name: owner,
            });
        }
        let empty = new.scopes.iter().any(|scope| scope.actions.is_empty());
        if new.scopes.is_empty() || empty || new.scopes.len() > SCOPES_MAX {
            return Err(ManageError::Invalid(format!(
                "a token has 1 to {SCOPES_MAX} scopes, each with actions"
            )));
        }
        if new
            .expires_in_seconds
            .is_some_and(|life| life == 0 || life > TOKEN_LIFE_MAX_SECONDS)
        {
            return Err(ManageError::Invalid(
                "a token lives 1 second to ten years".to_owned(),
            ));
        }
        let secret = format!("{ROBOT_PREFIX}{}", random_token());
        let now = now_micros();
        let row = TokenRow {
            name: new.name.clone(),
            sha256: Digest::sha256(secret.as_bytes()).to_bytes(),
            owner,
            scopes: serde_json::to_string(&new.scopes)
                .map_err(|error| ManageError::Invalid(error.to_string()))?,
            created_at: now,
            expires_at: new.expires_in_seconds.map(|life| now + life as i64 * 1_000_000),
            last_used_at: None,
        };
        if !self.metadata.add_token(row).await? {
            return Err(ManageError::Exists {
                kind: "token",
                name: new.name,
            });
        }
        self.renew().await?;
        self.audit.granted("create token", &actor, None, &new.name);
        Ok(TokenCreated {
            name: new.name,
            token: secret,
        })
    }

    pub(crate) async fn revoke_token(&self, principal: &Principal, name: &str) -> Result<()> {
        // To others it doesn't exist.
        if !self.tokens(principal).iter().any(|token| token.name == name)
            || !self.metadata.delete_token(name).await?
        {
            return Err(unknown("token", name));
        }
        self.renew().await?;
        self.audit.granted("revoke token", &principal.actor(), None, name);
        Ok(())
    }
}

impl Manage<'_> {
    pub(crate) fn users(&self) -> Vec<UserInfo> {
        let policy = self.gate.policy.load();
        let rows: BTreeMap<&str, &UserRow> = policy
            .rows
            .users
            .iter()
            .map(|row| (row.name.as_str(), row))
            .collect();
        let info = |name: &str| UserInfo {
            name: name.to_owned(),
            admin: policy.is_admin(name),
            disabled: rows.get(name).is_some_and(|row| row.disabled_at.is_some()),
            password: policy.password(name).is_some(),
            groups: policy.groups_of(name),
        };
        policy.user_names().into_iter().map(info).collect()
    }

    pub(crate) async fn add_user(&self, new: NewUser) -> Result<()> {
        check_name("user", &new.name)?;
        let exists = || ManageError::Exists {
            kind: "user",
            name: new.name.clone(),
        };
        if self.gate.policy.load().knows(&new.name) {
            return Err(exists());
        }
        let row = UserRow {
            name: new.name.clone(),
            password_hash: self.hash(new.password.as_deref()).await?,
            admin: new.admin,
            disabled_at: None,
            created_at: now_micros(),
        };
        if !self.gate.metadata.add_user(row).await? {
            return Err(exists());
        }
        self.done("add user", &new.name).await
    }

    pub(crate) async fn change_user(&self, name: &str, change: ChangeUser) -> Result<()> {
        let row = UserChange {
            password_hash: self.hash(change.password.as_deref()).await?,
            admin: change.admin,
            disabled: change.disabled,
        };
        let changed = self.gate.metadata.change_user(name, row).await?;
        self.ended(changed, "user", name)?;
        self.done("change user", name).await
    }

    pub(crate) async fn remove_user(&self, name: &str) -> Result<()> {
        let removed = self.gate.metadata.delete_user(name).await?;
        self.ended(removed, "user", name)?;
        self.done("remove user", name).await
    }

    pub(crate) fn groups(&self) -> Vec<GroupInfo> {
        let policy = self.gate.policy.load();
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for name in &policy.rows.groups {
            groups.entry(name.clone()).or_default();
        }
        let stored = policy.rows.members.iter().cloned();
        let configured = self.gate.config.groups.iter();
        let configured =
            configured.flat_map(|(name, members)| members.iter().map(|m| (name.clone(), m.clone())));
        for (name, member) in stored.chain(configured) {
            groups.entry(name).or_default().push(member);
        }
        let info = |(name, members)| GroupInfo { name, members };
        groups.into_iter().map(info).collect()
    }

    pub(crate) async fn add_member(&self, group: &str, member: &str) -> Result<()> {
        check_name("group", group)?;
        check_name("user", member)?;
        self.gate.metadata.add_member(group, member).await?;
        self.done("add member", &format!("{group} {member}")).await
    }

    pub(crate) async fn remove_member(&self, group: &str, member: &str) -> Result<()> {
        let removed = self.gate.metadata.remove_member(group, member).await?;
        self.ended(removed, "member", member)?;
        self.done("remove member", &format!("{group} {member}")).await
    }

    pub(crate) async fn remove_group(&self, name: &str) -> Result<()> {
        let removed = self.gate.metadata.delete_group(name).await?;
        self.ended(removed, "group", name)?;
        self.done("remove group", name).await
    }

    pub(crate) fn grants(&self) -> Vec<GrantInfo> {
        let configured = self.gate.config.grants.iter().flat_map(|grant| {
            grant.repositories.iter().map(|pattern| GrantInfo {
                subject: grant.subject.to_string(),
                pattern: pattern.clone(),
                actions: grant.actions,
                configured: true,
            })
        });
        let policy = self.gate.policy.load();
        let stored = policy.rows.grants.iter().filter_map(|row| {
            Some(GrantInfo {
                subject: row.subject.clone(),
                pattern: row.pattern.parse().ok()?,
                actions: row.actions.parse().ok()?,
                configured: false,
            })
        });
        configured.chain(stored).collect()
    }

    pub(crate) async fn put_grant(&self, grant: GrantInfo) -> Result<()> {
        let subject: Subject = grant
            .subject
            .parse()
            .map_err(|error: crate::config::SubjectError| ManageError::Invalid(error.to_string()))?;
        if grant.actions.is_empty() {
            return Err(ManageError::Invalid("a grant has at least one action".to_owned()));
        }
        let row = GrantRow {
            subject: subject.to_string(),
            pattern: grant.pattern.to_string(),
            actions: grant.actions.to_string(),
        };
        let shown = format!("{} {} {}", row.subject, row.pattern, row.actions);
        self.gate.metadata.put_grant(row).await?;
        self.done("grant", &shown).await
    }

    pub(crate) async fn remove_grant(&self, subject: &str, pattern: &str) -> Result<()> {
        let removed = self.gate.metadata.delete_grant(subject, pattern).await?;
        self.ended(removed, "grant", &format!("{subject} {pattern}"))?;
        self.done("remove grant", &format!("{subject} {pattern}")).await
    }

    async fn hash(&self, password: Option<&str>) -> Result<Option<String>> {
        let Some(password) = password else { return Ok(None) };
        let stored = self
            .gate
            .passwords
            .hash(password)
            .await
            .map_err(ManageError::Password)?;
        Ok(Some(stored.as_str().to_owned()))
    }

    fn ended(&self, found: bool, kind: &'static str, name: &str) -> Result<()> {
        if found { Ok(()) } else { Err(unknown(kind, name)) }
    }

    /// This server decides by it from now on; others within seconds.
    async fn done(&self, event: &str, detail: &str) -> Result<()> {
        self.gate.renew().await?;
        self.gate.audit.granted(event, &self.actor, None, detail);
        Ok(())
    }
}

/// The user that a caller acts for in everything. A token for a part of what its user may do makes no token for more.
fn user_name(principal: &Principal) -> Option<&str> {
    let client = principal.client().filter(|client| client.is_whole())?;
    match &client.identity {
        Identity::User(name) => Some(name),
        _ => None,
    }
}

fn token_info(row: &TokenRow) -> TokenInfo {
    let scopes: Vec<TokenScope> = serde_json::from_str(&row.scopes).unwrap_or_default();
    TokenInfo {
        name: row.name.clone(),
        owner: row.owner.clone(),
        scopes,
        created_at: rfc3339(row.created_at),
        expires_at: row.expires_at.map(rfc3339),
        last_used_at: row.last_used_at.map(rfc3339),
    }
}

fn rfc3339(micros: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(micros / 1_000_000);
    at.ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_default()
}

fn unknown(kind: &'static str, name: &str) -> ManageError {
    ManageError::Unknown {
        kind,
        name: name.to_owned(),
    }
}

fn check_name(kind: &'static str, name: &str) -> Result<()> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ':' | '/');
    if name.is_empty() || name.len() > NAME_LEN_MAX || name.contains(odd) {
        return Err(ManageError::Name {
            kind,
            name: name.to_owned(),
        });
    }
    Ok(())
}
