//! From what a request shows to who it is. What was checked once is remembered under a keyed hash of the header: a
//! password for a minute, a token until it ends, each only as long as the account behind it is the same.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use moka::sync::Cache;
use oci::Digest;
use oci::access::{Authorization, AuthorizationError};
use parking_lot::Mutex;
use subtle::ConstantTimeEq as _;

use super::audit::Audit;
use super::external::External;
use super::foreign::KeyError;
use super::htpasswd::{Htpasswd, HtpasswdError};
use super::limiter::Limiter;
use super::oidc::{OidcError, Provider};
use super::password::{PasswordError, Passwords};
use super::policy::{Policy, now_micros};
use super::proof::{Proof, derive};
use super::rules::Rules;
use super::signer::{SECRET_BYTES, SECRET_NAME, Signer, Use, now_seconds};
use super::workers::random_token;
use super::{Client, Identity, Principal, Tokens};
use crate::config::{AccessConfig, Config, TokenConfig};
use crate::metadata::{MetadataError, MetadataStore};
use crate::report::chain;

/// How often that is done which may wait.
const CHORES_INTERVAL: Duration = Duration::from_secs(60);
/// Headers that are remembered.
const SEEN_MAX: u64 = 50_000;
const SEEN_IDLE_MAX: Duration = Duration::from_secs(600);
/// A check that takes longer is no longer waited for.
const TURN_MAX: Duration = Duration::from_secs(60);
/// How long a password is believed without checking it again.
pub(super) const PASSWORD_SEEN_FOR: Duration = Duration::from_secs(60);

/// Decides who a request is.
pub(crate) struct Gate {
    pub(crate) config: AccessConfig,
    pub(crate) token: TokenConfig,
    pub(super) metadata: Arc<dyn MetadataStore>,
    pub(super) policy: ArcSwap<Policy>,
    htpasswd: Mutex<Option<Htpasswd>>,
    external: Option<External>,
    pub(super) providers: Vec<Provider>,
    pub(super) passwords: Passwords,
    pub(super) limiter: Limiter,
    pub(super) signer: Signer,
    seen: Cache<[u8; 32], Seen>,
    /// Whose turn it is to have a password checked; the others that came with the same wait.
    turns: Cache<[u8; 32], Arc<tokio::sync::Mutex<()>>>,
    seen_key: hmac::Key,
    pub(crate) audit: Audit,
    workers: Arc<Tokens>,
    local_token: String,
    /// Robots' tokens and when they were used last, written down now and then.
    pub(super) used: Mutex<HashMap<String, i64>>,
    /// When the chores were done last.
    chores: Mutex<Instant>,
    /// Held while the policy is made anew, so that an older one never replaces a newer.
    renewing: tokio::sync::Mutex<u64>,
}

/// How a request came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrival {
    /// By the worker's unix socket, where nothing is done without a token.
    pub(crate) socket: bool,
    pub(crate) tls: bool,
    /// The user that a client's certificate stands for.
    pub(crate) certificate: Option<Arc<str>>,
    /// The peer's, or what a trusted proxy says.
    pub(crate) address: Option<IpAddr>,
}

/// What a request shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown<'a> {
    pub(crate) arrival: &'a Arrival,
    pub(crate) authorization: Option<&'a [u8]>,
}

#[derive(Clone)]
struct Seen {
    generation: u64,
    until: Instant,
    proof: Arc<Proof>,
    client: Arc<Client>,
}

/// Why somebody isn't let in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessError {
    #[error("this socket needs a bearer token")]
    Socket,
    #[error("user name or password is wrong")]
    Password,
    #[error("the token is not known, has expired or was withdrawn")]
    Token,
    #[error("the token was made for getting other tokens: ask the token service for one")]
    RefreshToken,
    #[error(transparent)]
    Malformed(#[from] AuthorizationError),
    #[error(transparent)]
    Foreign(#[from] KeyError),
    #[error(transparent)]
    Oidc(#[from] OidcError),
    #[error("too many attempts to log in: wait {} s", wait.as_secs() + 1)]
    TooMany { wait: Duration },
    #[error("the account is disabled")]
    Disabled,
    #[error("signing a token failed")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

/// Why the server cannot decide about access at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GateError {
    #[error(transparent)]
    Htpasswd(#[from] HtpasswdError),
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error("OIDC provider {name}")]
    Oidc { name: String, source: OidcError },
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error("cannot open the audit log")]
    Audit(#[source] std::io::Error),
    #[error(transparent)]
    Metadata(#[from] MetadataError),
}

impl Gate {
    pub(crate) async fn open(
        config: &Config,
        metadata: Arc<dyn MetadataStore>,
        workers: Arc<Tokens>,
    ) -> Result<Arc<Self>, GateError> {
        let access = config.access.clone();
        let htpasswd = access.htpasswd.as_deref().map(Htpasswd::open).transpose()?;
        let external = config.token.external.clone().map(External::open).transpose()?;
        let providers = config.oidc.iter().cloned().map(|config| {
            let name = config.name.clone();
            Provider::new(config).map_err(|source| GateError::Oidc { name, source })
        });
        let providers = providers.collect::<Result<Vec<_>, _>>()?;
        let fresh: [u8; SECRET_BYTES] = rand::random();
        let secret = metadata.shared_secret(SECRET_NAME, &fresh).await?;
        let users = htpasswd
            .as_ref()
            .map(|file| file.users().clone())
            .unwrap_or_default();
        let federated = external.is_some() || !providers.is_empty();
        let policy = Policy::new(1, &access, federated, &users, metadata.accounts().await?);
        Ok(Arc::new(Self {
            token: config.token.clone(),
            policy: ArcSwap::from_pointee(policy),
            htpasswd: Mutex::new(htpasswd),
            external,
            providers,
            passwords: Passwords::new(),
            limiter: Limiter::new(access.logins_per_minute),
            signer: Signer::new(&secret, &config.token.service),
            seen: Cache::builder()
                .max_capacity(SEEN_MAX)
                .time_to_idle(SEEN_IDLE_MAX)
                .build(),
            turns: Cache::builder()
                .max_capacity(SEEN_MAX)
                .time_to_live(TURN_MAX)
                .build(),
            seen_key: hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>()),
            audit: Audit::open(access.audit_log.as_deref()).map_err(GateError::Audit)?,
            workers,
            local_token: random_token(),
            used: Mutex::default(),
            chores: Mutex::new(Instant::now()),
            renewing: tokio::sync::Mutex::new(1),
            config: access,
            metadata,
        }))
    }

    /// For whoever can read the run directory; good on the unix socket alone, until the server stops.
    pub(crate) fn local_token(&self) -> &str {
        &self.local_token
    }

    /// Whether there are accounts, so that callers are asked who they are.
    pub(crate) fn is_guarded(&self) -> bool {
        self.policy.load().guarded
    }

    pub(crate) async fn authenticate(&self, shown: Shown<'_>) -> Result<Principal, AccessError> {
        let Some(header) = shown.authorization else {
            if shown.arrival.socket {
                return Err(AccessError::Socket);
            }
            return self.without_header(shown.arrival).map(Principal::Client);
        };
        if shown.arrival.socket {
            return self.on_socket(header);
        }
        let key = self.seen_key(header);
        if let Some(client) = self.recall(&key) {
            return Ok(Principal::Client(client));
        }
        let text = str::from_utf8(header).map_err(|_| AuthorizationError::Scheme)?;
        match Authorization::parse(text)? {
            Authorization::Bearer(token) => {
                let (proof, life) = self.bearer(&token)?;
                self.remember(key, proof, life)
            }
            // Clients send what they have for this host. As long as there are no accounts, refusing it would lock
            // them out of what everybody may do.
            Authorization::Basic { .. } if !self.is_guarded() => {
                Ok(Principal::Client(self.policy.load().anonymous()))
            }
            Authorization::Basic { username, password } => {
                // A client's many connections begin at once: the first one's check is all of theirs, and counts once.
                let turn = self.turns.get_with(key, Arc::default);
                let _turn = turn.lock().await;
                if let Some(client) = self.recall(&key) {
                    return Ok(Principal::Client(client));
                }
                let (proof, life) = self.log_in(&username, &password, shown.arrival.address).await?;
                self.remember(key, proof, life)
            }
        }
    }

    fn remember(&self, key: [u8; 32], proof: Proof, life: Duration) -> Result<Principal, AccessError> {
        let policy = self.policy.load();
        let client = derive(&proof, &policy).ok_or(AccessError::Token)?;
        let seen = Seen {
            generation: policy.generation,
            until: Instant::now() + life,
            proof: Arc::new(proof),
            client: Arc::clone(&client),
        };
        self.seen.insert(key, seen);
        Ok(Principal::Client(client))
    }

    pub(super) fn without_header(&self, arrival: &Arrival) -> Result<Arc<Client>, AccessError> {
        let policy = self.policy.load();
        match &arrival.certificate {
            Some(user) => policy.user(user).ok_or(AccessError::Disabled),
            None => Ok(policy.anonymous()),
        }
    }

    fn on_socket(&self, header: &[u8]) -> Result<Principal, AccessError> {
        let text = str::from_utf8(header).map_err(|_| AuthorizationError::Scheme)?;
        let Authorization::Bearer(token) = Authorization::parse(text)? else {
            return Err(AccessError::Socket);
        };
        if bool::from(token.as_bytes().ct_eq(self.local_token.as_bytes())) {
            let client = Client::new(Identity::Local, Arc::new(Rules::everything()));
            return Ok(Principal::Client(Arc::new(client)));
        }
        let found = self.workers.find(&token).ok_or(AccessError::Token)?;
        if let Principal::Build(grant) = &found {
            let creator = grant.creator.load();
            grant.creator.store(self.renewed(&creator));
        }
        Ok(found)
    }

    /// A bearer token: a robot's own, one of our service, one of the external service.
    fn bearer(&self, token: &str) -> Result<(Proof, Duration), AccessError> {
        if let Some(proof) = self.robot(token) {
            return Ok((proof, PASSWORD_SEEN_FOR));
        }
        match (self.signer.verify(token), &self.external) {
            (Ok(claims), _) if claims.purpose == Use::Refresh => Err(AccessError::RefreshToken),
            (Ok(claims), _) => {
                let life = Duration::from_secs(claims.exp.saturating_sub(now_seconds()));
                Ok((Proof::Token(Box::new(claims)), life))
            }
            (Err(_), Some(external)) => external.verify(token),
            (Err(_), None) => Err(AccessError::Token),
        }
    }

    /// The robot whose token this is.
    pub(super) fn robot(&self, secret: &str) -> Option<Proof> {
        let policy = self.policy.load();
        let name = policy.robot(secret)?.name.clone();
        self.used.lock().insert(name.clone(), now_micros());
        let version = policy.credential_version(&Identity::Robot(name.clone()));
        Some(Proof::Robot { name, version })
    }

    fn seen_key(&self, header: &[u8]) -> [u8; 32] {
        let tag = hmac::sign(&self.seen_key, header);
        let mut key = [0; 32];
        key.copy_from_slice(&tag.as_ref()[..32]);
        key
    }

    fn recall(&self, key: &[u8; 32]) -> Option<Arc<Client>> {
        let mut seen = self.seen.get(key)?;
        if seen.until <= Instant::now() {
            return None;
        }
        let policy = self.policy.load();
        let timed = matches!(*seen.proof, Proof::Robot { .. });
        if seen.generation == policy.generation && !timed {
            return Some(seen.client);
        }
        // The account may be another by now, or a robot's time over.
        seen.client = derive(&seen.proof, &policy)?;
        seen.generation = policy.generation;
        let client = Arc::clone(&seen.client);
        self.seen.insert(*key, seen);
        Some(client)
    }

    /// Looks what has changed outside, and does what may wait.
    pub(crate) async fn look_around(&self) {
        if let Err(error) = self.refresh().await {
            tracing::error!(
                error = chain(&error),
                "accounts cannot be read: what was known stays"
            );
        }
        if self.chores_are_due() {
            self.limiter.forget();
            self.note_used().await;
        }
        self.audit.reopen();
    }

    fn chores_are_due(&self) -> bool {
        let mut last = self.chores.lock();
        let due = last.elapsed() > CHORES_INTERVAL;
        if due {
            *last = Instant::now();
        }
        due
    }

    /// Takes over what has changed.
    pub(crate) async fn refresh(&self) -> Result<(), GateError> {
        if let Some(external) = &self.external {
            external.refresh();
        }
        let file = match self.htpasswd.lock().as_mut().map(Htpasswd::refresh) {
            Some(Ok(news)) => news,
            Some(Err(error)) => {
                tracing::error!(error = chain(&error), "the password file is left as it was");
                false
            }
            None => false,
        };
        if file || self.metadata.policy_version().await? != self.policy.load().rows.version {
            self.renew().await?;
        }
        Ok(())
    }

    /// Makes the policy anew.
    pub(super) async fn renew(&self) -> Result<(), GateError> {
        let mut generation = self.renewing.lock().await;
        let rows = self.metadata.accounts().await?;
        let users = self.htpasswd.lock().as_ref().map(|file| file.users().clone());
        *generation += 1;
        let federated = self.external.is_some() || !self.providers.is_empty();
        let policy = Policy::new(
            *generation,
            &self.config,
            federated,
            &users.unwrap_or_default(),
            rows,
        );
        self.policy.store(Arc::new(policy));
        Ok(())
    }

    /// A client as it is now, long after it was let in; nobody if its account has ended.
    pub(crate) fn renewed(&self, client: &Client) -> Arc<Client> {
        let policy = self.policy.load();
        let gone = || Arc::new(Client::new(client.identity.clone(), Arc::default()));
        let now = match &client.identity {
            Identity::Anonymous => policy.anonymous(),
            Identity::User(name) => policy.user(name).unwrap_or_else(gone),
            Identity::Robot(name) => policy
                .robot_named(name)
                .and_then(|robot| policy.robot_client(robot))
                .map_or_else(gone, Arc::new),
            Identity::Federated { .. } | Identity::External(_) | Identity::Local => Arc::new(client.clone()),
        };
        match &client.scope {
            Some(scope) => Arc::new(now.scoped(Arc::clone(scope))),
            None => now,
        }
    }

    async fn note_used(&self) {
        let used: Vec<(String, i64)> = self.used.lock().drain().collect();
        if !used.is_empty()
            && let Err(error) = self.metadata.touch_tokens(&used).await
        {
            tracing::warn!(error = chain(&error), "when tokens were used is lost");
        }
    }
}

/// Of a token, what may be logged: which one it is, and nothing that lets anybody in.
pub(super) fn fingerprint(token: &str) -> String {
    hex::encode(&Digest::sha256(token.as_bytes()).to_bytes()[1..7])
}
