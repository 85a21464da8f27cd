//! Log-ins by user name and password, where the password may also be a robot's token or a CI job's.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Client;
use super::gate::{AccessError, Gate, PASSWORD_SEEN_FOR, fingerprint};
use super::oidc::Job;
use super::password::PASSWORD_LEN_MAX;
use super::proof::{Proof, derive};
use super::rules::AccessClaim;
use super::signer::{Claims, Use, now_seconds};

/// What robots' tokens begin with, so that scanners for leaked secrets know them.
pub(crate) const ROBOT_PREFIX: &str = "lyrobot_";

impl Gate {
    /// Checks a password. The second value says how long that holds.
    pub(super) async fn log_in(
        &self,
        user: &str,
        password: &str,
        address: Option<IpAddr>,
    ) -> Result<(Proof, Duration), AccessError> {
        if password.starts_with(ROBOT_PREFIX) {
            return match self.robot(password) {
                Some(proof) => Ok((proof, PASSWORD_SEEN_FOR)),
                None => {
                    self.audit.refused(
                        "login",
                        user,
                        address,
                        &format!("unknown token {}", fingerprint(password)),
                    );
                    Err(AccessError::Token)
                }
            };
        }
        if let Some(provider) = self.provider_of(password) {
            let job = self.job(provider, password, address).await?;
            let life = job.life;
            return Ok((Proof::Token(Box::new(job_claims(job))), life));
        }
        if let Err(wait) = self.limiter.attempt(user, address) {
            self.audit.refused("login", user, address, "too many attempts");
            return Err(AccessError::TooMany { wait });
        }
        let policy = self.policy.load_full();
        let stored = policy
            .password(user)
            .filter(|_| password.len() <= PASSWORD_LEN_MAX);
        if !self.passwords.check(stored, password).await {
            self.audit
                .refused("login", user, address, "wrong user name or password");
            return Err(AccessError::Password);
        }
        let version = stored.map(|stored| stored.version()).unwrap_or_default();
        self.limiter.succeeded(user, address);
        self.audit.granted("login", user, address, "");
        let user = user.to_owned();
        Ok((Proof::Password { user, version }, PASSWORD_SEEN_FOR))
    }

    /// The provider that a token says it is of.
    pub(super) fn provider_of(&self, token: &str) -> Option<usize> {
        // A JWT's header begins so.
        if !token.starts_with("eyJ") {
            return None;
        }
        self.providers
            .iter()
            .position(|provider| provider.claims_issuer(token))
    }

    pub(super) async fn job(
        &self,
        provider: usize,
        token: &str,
        address: Option<IpAddr>,
    ) -> Result<Job, AccessError> {
        let provider = &self.providers[provider];
        let name = &provider.config.name;
        match provider.job(token).await {
            Ok(job) => {
                let who = format!("{name}:{}", job.subject);
                self.audit.granted("login", &who, address, "CI job");
                Ok(job)
            }
            Err(error) => {
                self.audit.refused("login", name, address, &error.to_string());
                Err(error.into())
            }
        }
    }

    /// Who a proof is of, as recorded.
    pub(super) fn client_of(&self, proof: &Proof) -> Option<Arc<Client>> {
        derive(proof, &self.policy.load())
    }
}

/// What a job is remembered as: a token of ours that was never signed, for all that its grants say.
pub(super) fn job_claims(job: Job) -> Claims {
    let now = now_seconds();
    Claims {
        iss: String::new(),
        aud: String::new(),
        sub: format!("federated:{}:{}", job.provider, job.subject),
        exp: now + job.life.as_secs(),
        nbf: now,
        iat: now,
        jti: String::new(),
        purpose: Use::Access,
        access: vec![AccessClaim {
            kind: "registry".to_owned(),
            name: "api".to_owned(),
            actions: vec!["*".to_owned()],
        }],
        credential: String::new(),
        rules: job.rules,
    }
}
