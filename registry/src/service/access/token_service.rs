//! Our own token service: what `/token` gives (distribution, "Token Authentication Specification" and "OAuth2 Token
//! Authentication").

use std::net::IpAddr;
use std::time::Duration;

use oci::access::{Authorization, ResourceScope};

use super::gate::{AccessError, Arrival, Gate};
use super::login::job_claims;
use super::proof::{Proof, bearer_of};
use super::rules::AccessClaim;
use super::signer::{Contents, Use, now_seconds};
use super::{Client, Identity};

/// What somebody shows to get a token.
#[derive(Debug)]
pub(crate) enum TokenRequest {
    /// Nothing, or a certificate.
    Nothing,
    Header(Authorization),
    Refresh(String),
    /// A CI job's token.
    Exchange(String),
}

/// A token, and what else the answer says.
#[derive(Debug)]
pub(crate) struct GrantedToken {
    pub(crate) token: String,
    pub(crate) life_seconds: u64,
    pub(crate) refresh: Option<String>,
    /// What was granted, as scopes.
    pub(crate) scope: String,
}

impl Gate {
    /// Gives a token for that part of what is wanted which the caller may do.
    pub(crate) async fn token(
        &self,
        arrival: &Arrival,
        request: TokenRequest,
        wanted: &[ResourceScope],
        offline: bool,
    ) -> Result<GrantedToken, AccessError> {
        let exchange = matches!(request, TokenRequest::Exchange(_));
        let proof = self.prove(arrival, request).await?;
        let client = match &proof {
            // The scope of a token doesn't bind those made from it.
            Proof::Token(claims) => bearer_of(claims, &self.policy.load()),
            other => self.client_of(other),
        };
        let client = client.ok_or(AccessError::Token)?;
        let api = client.identity != Identity::Anonymous || client.is_admin();
        let access = AccessClaim::granted(wanted, api, |action, name| client.may_unscoped(action, name));
        let life = match &proof {
            // Whoever exchanges by hand has nothing to renew the token with.
            Proof::Token(claims) if exchange => Duration::from_secs(claims.exp.saturating_sub(now_seconds())),
            _ => self.token.life,
        };
        let scope: Vec<String> = access.iter().map(|claim| scope_of(claim).to_string()).collect();
        let scope = scope.join(" ");
        self.note(&client, &scope, arrival.address);
        let (token, life_seconds) = self.sign(&client, &proof, Use::Access, access, life)?;
        let refresh = match (offline, &client.identity) {
            (true, Identity::User(_) | Identity::Robot(_) | Identity::Federated { .. }) => {
                let signed = self.sign(&client, &proof, Use::Refresh, Vec::new(), self.token.refresh_life)?;
                Some(signed.0)
            }
            _ => None,
        };
        Ok(GrantedToken {
            token,
            life_seconds,
            refresh,
            scope,
        })
    }

    async fn prove(&self, arrival: &Arrival, request: TokenRequest) -> Result<Proof, AccessError> {
        match request {
            TokenRequest::Nothing => Ok(match &arrival.certificate {
                Some(user) => Proof::Certificate(user.to_string()),
                None => Proof::None,
            }),
            // As at every other door: without accounts there is nobody to log in as.
            TokenRequest::Header(Authorization::Basic { .. }) if !self.is_guarded() => Ok(Proof::None),
            TokenRequest::Header(Authorization::Basic { username, password }) => {
                Ok(self.log_in(&username, &password, arrival.address).await?.0)
            }
            TokenRequest::Header(Authorization::Bearer(token)) | TokenRequest::Refresh(token) => {
                if let Some(proof) = self.robot(&token) {
                    return Ok(proof);
                }
                let claims = self.signer.verify(&token).map_err(|_| AccessError::Token)?;
                if claims.purpose != Use::Refresh {
                    return Err(AccessError::Token);
                }
                Ok(Proof::Token(Box::new(claims)))
            }
            TokenRequest::Exchange(token) => {
                let provider = self.provider_of(&token).ok_or(AccessError::Token)?;
                let job = self.job(provider, &token, arrival.address).await?;
                Ok(Proof::Token(Box::new(job_claims(job))))
            }
        }
    }

    fn sign(
        &self,
        client: &Client,
        proof: &Proof,
        purpose: Use,
        access: Vec<AccessClaim>,
        life: Duration,
    ) -> Result<(String, u64), AccessError> {
        let policy = self.policy.load();
        let (rules, end) = match (proof, &client.identity) {
            (Proof::Token(claims), Identity::Federated { .. }) => (claims.rules.clone(), Some(claims.exp)),
            // A refreshed token never outlives what it is refreshed with.
            (Proof::Token(claims), _) => (Vec::new(), Some(claims.exp)),
            _ => (Vec::new(), None),
        };
        let contents = Contents {
            identity: client.identity.clone(),
            purpose,
            access,
            credential: policy.credential_version(&client.identity),
            rules,
            life,
            end,
        };
        self.signer.sign(contents).map_err(AccessError::Sign)
    }

    /// Tokens that allow more than looking are recorded; the others are as many as pulls.
    fn note(&self, client: &Client, scope: &str, address: Option<IpAddr>) {
        let more = scope.contains("push") || scope.contains("delete") || scope.contains("admin");
        if more {
            self.audit
                .granted("token", &client.identity.to_string(), address, scope);
        }
    }
}

fn scope_of(claim: &AccessClaim) -> ResourceScope {
    ResourceScope {
        kind: claim.kind.clone(),
        name: claim.name.clone(),
        actions: claim.actions.clone(),
    }
}
