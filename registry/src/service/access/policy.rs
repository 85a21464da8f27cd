//! Everything that decides who may do what, as it stands: accounts of the database, of the password file, of the
//! configuration. Never changed, only made anew.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// What a robot's token is cut down to, as it is stored.
pub(crate) use client::api::accounts::TokenScope;
use oci::Digest;
use oci::access::{Actions, RepoPattern};
use parking_lot::Mutex;

use super::password::StoredPassword;
use super::{Client, Identity, Rules};
use crate::config::{AccessConfig, Anonymous, Subject};
use crate::metadata::accounts::{AccountRows, TokenRow};

/// An owner's name for robots that belong to nobody: their tokens have exactly their own scopes.
pub(crate) const SERVER_OWNED: &str = "";

pub(crate) struct Policy {
    /// Differs from that of every other policy of this process.
    pub(super) generation: u64,
    /// Whether there are accounts, so that it makes sense to ask callers who they are.
    pub(super) guarded: bool,
    pub(super) rows: AccountRows,
    users: HashMap<String, User>,
    groups: HashMap<String, Vec<String>>,
    grants: HashMap<Subject, Vec<(RepoPattern, Actions)>>,
    robots: HashMap<Vec<u8>, Robot>,
    admins: HashSet<String>,
    anonymous: Arc<Client>,
    /// Made when they are first asked for.
    clients: Mutex<HashMap<String, Arc<Client>>>,
}

#[derive(Clone, Debug)]
struct User {
    password: Option<StoredPassword>,
    admin: bool,
    disabled: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Robot {
    pub(super) name: String,
    owner: String,
    cut: Arc<Rules>,
    expires_at_micros: Option<i64>,
    version: String,
}

impl Policy {
    pub(super) fn new(
        generation: u64,
        config: &AccessConfig,
        federated: bool,
        htpasswd: &BTreeMap<String, StoredPassword>,
        rows: AccountRows,
    ) -> Self {
        let mut policy = Self {
            generation,
            guarded: federated
                || config.htpasswd.is_some()
                || !config.grants.is_empty()
                || !config.admins.is_empty()
                || config.anonymous == Some(Anonymous::None)
                || !rows.users.is_empty()
                || !rows.tokens.is_empty(),
            users: HashMap::new(),
            groups: HashMap::new(),
            grants: HashMap::new(),
            robots: rows.tokens.iter().filter_map(robot).collect(),
            admins: config.admins.iter().cloned().collect(),
            anonymous: Arc::new(Client::new(Identity::Anonymous, Arc::default())),
            clients: Mutex::default(),
            rows,
        };
        policy.take_users(htpasswd);
        policy.take_grants(config);
        policy.anonymous = Arc::new(policy.anonymous_client(config));
        policy
    }

    fn take_users(&mut self, htpasswd: &BTreeMap<String, StoredPassword>) {
        for row in &self.rows.users {
            let password = row.password_hash.as_deref().map(StoredPassword::new);
            if let Some(Err(error)) = &password {
                tracing::error!(user = row.name, %error, "the user cannot log in");
            }
            self.users.insert(
                row.name.clone(),
                User {
                    password: password.and_then(Result::ok),
                    admin: row.admin,
                    disabled: row.disabled_at.is_some(),
                },
            );
        }
        // The operator's file has the last word on passwords; who is disabled in the database stays so.
        for (name, stored) in htpasswd {
            let user = self.users.entry(name.clone()).or_insert(User {
                password: None,
                admin: false,
                disabled: false,
            });
            user.password = Some(stored.clone());
        }
    }

    fn take_grants(&mut self, config: &AccessConfig) {
        let configured = config.groups.iter();
        let configured = configured.flat_map(|(group, members)| members.iter().map(move |m| (group, m)));
        let stored = self.rows.members.iter().map(|(group, member)| (group, member));
        for (group, member) in configured.chain(stored) {
            self.groups.entry(member.clone()).or_default().push(group.clone());
        }
        for grant in &config.grants {
            let list = self.grants.entry(grant.subject.clone()).or_default();
            list.extend(
                grant
                    .repositories
                    .iter()
                    .map(|pattern| (pattern.clone(), grant.actions)),
            );
        }
        for row in &self.rows.grants {
            match (row.subject.parse(), row.pattern.parse(), row.actions.parse()) {
                (Ok(subject), Ok(pattern), Ok(actions)) => {
                    self.grants.entry(subject).or_default().push((pattern, actions));
                }
                // Written by a newer version: what isn't understood gives nothing.
                _ => tracing::error!(
                    subject = row.subject,
                    pattern = row.pattern,
                    "a grant is not understood"
                ),
            }
        }
    }

    fn anonymous_client(&self, config: &AccessConfig) -> Client {
        let mut rules = Rules::of(self.granted(&Subject::Anonymous));
        // Undecided: loopback listeners of a server for one person, until accounts are made.
        let undecided = if self.guarded {
            Anonymous::None
        } else {
            Anonymous::ReadWrite
        };
        match config.anonymous.unwrap_or(undecided) {
            Anonymous::None => {}
            Anonymous::ReadOnly => rules.add(&RepoPattern::all(), "pull".parse().unwrap_or_default()),
            Anonymous::ReadWrite => rules.add(&RepoPattern::all(), Actions::ALL),
        }
        Client::new(Identity::Anonymous, Arc::new(rules))
    }

    pub(super) fn anonymous(&self) -> Arc<Client> {
        Arc::clone(&self.anonymous)
    }

    /// A user by name, also one that only grants name (client certificates); `None`: disabled.
    pub(super) fn user(&self, name: &str) -> Option<Arc<Client>> {
        if self.users.get(name).is_some_and(|user| user.disabled) {
            return None;
        }
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(name) {
            return Some(Arc::clone(client));
        }
        let mut client = Client::new(Identity::User(name.to_owned()), Arc::new(self.rules_of(name)));
        if self.admins.contains(name) || self.users.get(name).is_some_and(|user| user.admin) {
            client = client.admin();
        }
        let client = Arc::new(client);
        clients.insert(name.to_owned(), Arc::clone(&client));
        Some(client)
    }

    fn rules_of(&self, name: &str) -> Rules {
        let groups = self.groups.get(name).into_iter().flatten();
        let subjects = groups
            .map(|group| Subject::Group(group.clone()))
            .chain([Subject::User(name.to_owned()), Subject::Authenticated]);
        let mut rules = (*self.anonymous.rules).clone();
        for subject in subjects {
            for (pattern, actions) in self.granted(&subject) {
                rules.add(&pattern, actions);
            }
        }
        rules
    }

    fn granted(&self, subject: &Subject) -> Vec<(RepoPattern, Actions)> {
        self.grants.get(subject).cloned().unwrap_or_default()
    }

    /// The password that a user logs in with.
    pub(super) fn password(&self, name: &str) -> Option<&StoredPassword> {
        let user = self.users.get(name)?;
        user.password.as_ref().filter(|_| !user.disabled)
    }

    /// What identifies the credential that a token of ours was made for: when it changes, so do the tokens end.
    pub(super) fn credential_version(&self, identity: &Identity) -> String {
        match identity {
            Identity::User(name) => self
                .password(name)
                .map(StoredPassword::version)
                .unwrap_or_default(),
            Identity::Robot(name) => self
                .robot_named(name)
                .map(|robot| robot.version.clone())
                .unwrap_or_default(),
            _ => String::new(),
        }
    }

    pub(super) fn robot(&self, secret: &str) -> Option<&Robot> {
        self.robots.get(&Digest::sha256(secret.as_bytes()).to_bytes())
    }

    pub(super) fn robot_named(&self, name: &str) -> Option<&Robot> {
        self.robots.values().find(|robot| robot.name == name)
    }

    /// What a robot may do now; `None`: its token has expired or its owner is gone.
    pub(super) fn robot_client(&self, robot: &Robot) -> Option<Client> {
        if robot.expires_at_micros.is_some_and(|end| end <= now_micros()) {
            return None;
        }
        let identity = Identity::Robot(robot.name.clone());
        if robot.owner == SERVER_OWNED {
            return Some(Client::new(identity, Arc::clone(&robot.cut)));
        }
        if !self.users.contains_key(&robot.owner) && !self.groups.contains_key(&robot.owner) {
            return None;
        }
        let owner = self.user(&robot.owner)?;
        let mut client = (*owner).clone().cut(Arc::clone(&robot.cut));
        client.identity = identity;
        Some(client)
    }

    pub(super) fn is_admin(&self, name: &str) -> bool {
        self.user(name).is_some_and(|client| client.is_admin())
    }

    pub(super) fn groups_of(&self, name: &str) -> Vec<String> {
        self.groups.get(name).cloned().unwrap_or_default()
    }

    pub(super) fn user_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.users.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// Whether there is an account of this name.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.users.contains_key(name)
    }
}

fn robot(row: &TokenRow) -> Option<(Vec<u8>, Robot)> {
    let scopes: Vec<TokenScope> = match serde_json::from_str(&row.scopes) {
        Ok(scopes) => scopes,
        Err(error) => {
            tracing::error!(token = row.name, %error, "a token's scopes are not understood: it gives nothing");
            return None;
        }
    };
    let cut = Rules::of(scopes.into_iter().map(|scope| (scope.pattern, scope.actions)));
    let robot = Robot {
        name: row.name.clone(),
        owner: row.owner.clone(),
        cut: Arc::new(cut),
        expires_at_micros: row.expires_at,
        version: hex::encode(row.sha256.get(1..9).unwrap_or_default()),
    };
    Some((row.sha256.clone(), robot))
}

pub(super) fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
