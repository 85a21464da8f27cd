//! `[token]` and `[[oidc]]`: bearer tokens, of our own service, of an external one, of CI systems.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use oci::access::{Actions, RepoPattern};
use serde::{Deserialize, Serialize};

use super::{ConfigError, require, units};

/// The token service that clients are sent to.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenConfig {
    /// The service's name in challenges and tokens.
    pub service: String,
    /// The address of /token as clients reach it. None: what the request's `Host` says.
    pub realm: Option<String>,
    /// How long a token is good for.
    #[serde(with = "units::time")]
    pub life: Duration,
    /// How long a client that stored an identity token needs no password.
    #[serde(with = "units::time")]
    pub refresh_life: Duration,
    /// Another service whose tokens are believed; clients are sent there instead.
    pub external: Option<ExternalTokenConfig>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalTokenConfig {
    pub realm: String,
    /// What its tokens must have as audience.
    pub service: String,
    pub issuer: String,
    /// Its public keys: a PEM file or a JWKS, read again when it changes.
    pub keys: PathBuf,
}

/// A CI system whose jobs push with the tokens that it signs for them.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OidcConfig {
    /// What audit log and history call it.
    pub name: String,
    /// `https://token.actions.githubusercontent.com`, `https://gitlab.example.com`.
    pub issuer: String,
    /// What the job asks a token for, usually this registry's name.
    pub audience: String,
    /// Its public keys as a JWKS file. None: they are fetched from the issuer.
    #[serde(default)]
    pub keys: Option<PathBuf>,
    /// How long a job may push after it has shown its token.
    #[serde(default = "one_hour", with = "units::time")]
    pub life: Duration,
    #[serde(rename = "grant")]
    pub grants: Vec<OidcGrant>,
}

/// What jobs may do whose claims are these.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OidcGrant {
    /// All must be there; a value that ends with `*` is a beginning.
    pub claims: BTreeMap<String, String>,
    pub repositories: Vec<RepoPattern>,
    pub actions: Actions,
}

fn one_hour() -> Duration {
    Duration::from_secs(3600)
}

impl TokenConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        require(!self.service.is_empty(), "token.service", "is empty")?;
        require(
            self.life >= Duration::from_secs(60),
            "token.life",
            "clients expect tokens to last 60 s at least",
        )?;
        let realms = self
            .realm
            .iter()
            .chain(self.external.iter().map(|external| &external.realm));
        for realm in realms {
            let url = url::Url::parse(realm);
            require(
                url.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some()),
                "token.realm",
                format!("{realm:?} is no address such as https://registry.example.com/token"),
            )?;
        }
        Ok(())
    }
}

impl OidcConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let named = !self.name.is_empty() && !self.name.contains(':');
        require(named, "oidc.name", "is empty or has a colon")?;
        let issuer = url::Url::parse(&self.issuer).ok();
        let loopback = |url: &url::Url| match url.host() {
            Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
            Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
            Some(url::Host::Domain(name)) => name == "localhost",
            None => false,
        };
        require(
            issuer.is_some_and(|url| url.scheme() == "https" || (url.scheme() == "http" && loopback(&url))),
            "oidc.issuer",
            format!("{:?} is no https address", self.issuer),
        )?;
        require(
            !self.audience.is_empty(),
            "oidc.audience",
            "is empty: tokens made for others would count",
        )?;
        for grant in &self.grants {
            require(
                !grant.claims.is_empty()
                    && grant
                        .claims
                        .values()
                        .all(|value| !value.is_empty() && value != "*"),
                "oidc.grant",
                "names no claims: whoever has a job at the issuer could push",
            )?;
        }
        Ok(())
    }
}

impl Default for TokenConfig {
    fn default() -> Self {
        Self {
            service: "layeryard".to_owned(),
            realm: None,
            life: Duration::from_secs(300),
            refresh_life: Duration::from_secs(90 * 24 * 3600),
            external: None,
        }
    }
}
