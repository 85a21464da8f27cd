//! CI systems that sign a token for each job (OpenID Connect): GitHub, GitLab, and what speaks like them.
//!
//! Their keys are fetched from the issuer, kept, and fetched again when a token names one that is not known, once a
//! minute at most: nobody can make us ask more often. The issuer's address comes from the configuration alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::JwkSet;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::foreign::{Expected, KeyError, KeySet};
use super::policy::TokenScope;
use crate::config::{OidcConfig, OidcGrant};

const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Keys are fetched again after this, so that a withdrawn one ends.
const KEYS_AGE_MAX: Duration = Duration::from_secs(3600);
/// For tokens with unknown keys they are not fetched more often than this.
const FETCH_PAUSE: Duration = Duration::from_secs(60);
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

pub(super) struct Provider {
    pub(super) config: OidcConfig,
    http: reqwest::Client,
    state: Mutex<State>,
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    keys: KeySet,
    fetched: Option<Instant>,
}

/// A job that showed a good token.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) provider: String,
    pub(super) subject: String,
    pub(super) rules: Vec<TokenScope>,
    pub(super) life: Duration,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum OidcError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the keys of {issuer} cannot be fetched: {reason}")]
    Fetch { issuer: String, reason: String },
    #[error("the HTTP client cannot be made")]
    Client(#[source] reqwest::Error),
    #[error("no grant is for a job with these claims")]
    NoGrant,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Provider {
    pub(super) fn new(config: OidcConfig) -> Result<Self, OidcError> {
        let http = reqwest::Client::builder()
            .timeout(FETCH_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(OidcError::Client)?;
        let mut state = State::default();
        if let Some(path) = &config.keys {
            state.keys = KeySet::read(path)?;
        }
        Ok(Self {
            config,
            http,
            state: Mutex::new(state),
            fetching: tokio::sync::Mutex::default(),
        })
    }

    /// Whether a token says that it is of this issuer. Nothing is checked yet.
    pub(super) fn claims_issuer(&self, token: &str) -> bool {
        #[derive(Clone, Deserialize)]
        struct Issuer {
            iss: String,
        }
        jsonwebtoken::dangerous::insecure_decode_claims::<Issuer>(token)
            .is_ok_and(|claims| claims.iss == self.config.issuer)
    }

    /// Checks a token and finds what its job may do.
    pub(super) async fn job(&self, token: &str) -> Result<Job, OidcError> {
        let keys = self.keys_for(token).await?;
        let expected = Expected {
            issuer: &self.config.issuer,
            audience: &self.config.audience,
        };
        let claims: BTreeMap<String, Value> = keys.verify(token, expected)?;
        let matching = self.config.grants.iter().filter(|grant| matches(grant, &claims));
        let rules: Vec<TokenScope> = matching
            .flat_map(|grant| {
                grant.repositories.iter().map(|pattern| TokenScope {
                    pattern: pattern.clone(),
                    actions: grant.actions,
                })
            })
            .collect();
        if rules.is_empty() {
            return Err(OidcError::NoGrant);
        }
        Ok(Job {
            provider: self.config.name.clone(),
            subject: claims
                .get("sub")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            rules,
            life: self.config.life,
        })
    }

    async fn keys_for(&self, token: &str) -> Result<KeySet, OidcError> {
        let held = || {
            let state = self.state.lock();
            let age = state.fetched.map(|at| at.elapsed());
            let good = match age {
                None => false,
                Some(age) => age < FETCH_PAUSE || (age < KEYS_AGE_MAX && state.keys.knows(token)),
            };
            (good || self.config.keys.is_some()).then(|| state.keys.clone())
        };
        if let Some(keys) = held() {
            return Ok(keys);
        }
        let _alone = self.fetching.lock().await;
        if let Some(keys) = held() {
            return Ok(keys);
        }
        match self.fetch().await {
            Ok(keys) => {
                *self.state.lock() = State {
                    keys: keys.clone(),
                    fetched: Some(Instant::now()),
                };
                Ok(keys)
            }
            Err(error) => {
                let state = self.state.lock();
                // An issuer that is down for a while doesn't stop jobs whose keys are here.
                match state.fetched {
                    Some(_) if state.keys.knows(token) => {
                        tracing::warn!(%error, "going on with the keys that are here");
                        Ok(state.keys.clone())
                    }
                    _ => Err(error),
                }
            }
        }
    }

    async fn fetch(&self) -> Result<KeySet, OidcError> {
        let issuer = self.config.issuer.trim_end_matches('/');
        let failed = |reason: String| OidcError::Fetch {
            issuer: self.config.issuer.clone(),
            reason,
        };
        let discovery: Discovery = self
            .get(&format!("{issuer}/.well-known/openid-configuration"))
            .await
            .map_err(failed)?;
        if discovery.issuer != self.config.issuer {
            return Err(failed(format!("it calls itself {:?}", discovery.issuer)));
        }
        let secure = self.config.issuer.starts_with("https:");
        let address = Url::parse(&discovery.jwks_uri).map_err(|error| failed(error.to_string()))?;
        if secure && address.scheme() != "https" {
            return Err(failed("its keys are not behind https".to_owned()));
        }
        let set: JwkSet = self.get(address.as_str()).await.map_err(failed)?;
        Ok(KeySet::of(&set))
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, address: &str) -> Result<T, String> {
        let error = |error: reqwest::Error| error.without_url().to_string();
        let mut answer = self.http.get(address).send().await.map_err(error)?;
        if !answer.status().is_success() {
            return Err(format!("{address} answers {}", answer.status()));
        }
        let mut body = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(error)? {
            body.extend_from_slice(&piece);
            if body.len() > ANSWER_BYTES_MAX {
                return Err(format!("{address} answers more than {ANSWER_BYTES_MAX} bytes"));
            }
        }
        serde_json::from_slice(&body).map_err(|error| format!("{address}: {error}"))
    }
}

fn matches(grant: &OidcGrant, claims: &BTreeMap<String, Value>) -> bool {
    grant.claims.iter().all(|(name, wanted)| {
        let actual = match claims.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Bool(flag)) => flag.to_string(),
            Some(Value::Number(number)) => number.to_string(),
            _ => return false,
        };
        match wanted.strip_suffix('*') {
            Some(beginning) => actual.starts_with(beginning),
            None => actual == *wanted,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_claims_must_match() {
        let grant: OidcGrant = serde_json::from_value(serde_json::json!({
            "claims": { "repository": "acme/app", "ref": "refs/heads/*", "protected": "true" },
            "repositories": ["acme/app"],
            "actions": ["push"],
        }))
        .unwrap();
        let claims = |repository: &str, reference: &str| {
            BTreeMap::from([
                ("repository".to_owned(), Value::from(repository)),
                ("ref".to_owned(), Value::from(reference)),
                ("protected".to_owned(), Value::from(true)),
            ])
        };
        assert!(matches(&grant, &claims("acme/app", "refs/heads/main")));
        assert!(!matches(&grant, &claims("acme/app2", "refs/heads/main")));
        assert!(!matches(&grant, &claims("acme/app", "refs/tags/v1")));
        assert!(!matches(&grant, &BTreeMap::new()));
    }
}
