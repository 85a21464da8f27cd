//! Tokens of our own service: JWTs under one secret that all replicas share (table `secrets`), always HS256.

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};

use super::Identity;
use super::policy::{TokenScope, now_micros};
use super::rules::AccessClaim;

/// The secret's name in the database.
pub(super) const SECRET_NAME: &str = "token key";
pub(super) const SECRET_BYTES: usize = 32;
const ISSUER: &str = "layeryard";
/// By how much the clocks of replicas may differ.
const LEEWAY_SECONDS: u64 = 5;

pub(super) struct Signer {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
    service: String,
}

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Use {
    /// Requests.
    Access,
    /// Getting other tokens.
    Refresh,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    pub(super) aud: String,
    pub(super) sub: String,
    /// Seconds since 1970.
    pub(super) exp: u64,
    pub(super) nbf: u64,
    pub(super) iat: u64,
    pub(super) jti: String,
    #[serde(rename = "use")]
    pub(super) purpose: Use,
    pub(super) access: Vec<AccessClaim>,
    /// Which password or robot's token it was made for.
    pub(super) credential: String,
    /// What a federated caller may do: nothing here knows them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) rules: Vec<TokenScope>,
}

/// What to put into a token.
pub(super) struct Contents {
    pub(super) identity: Identity,
    pub(super) purpose: Use,
    pub(super) access: Vec<AccessClaim>,
    pub(super) credential: String,
    pub(super) rules: Vec<TokenScope>,
    pub(super) life: Duration,
    /// Seconds since 1970 at which it ends at the latest.
    pub(super) end: Option<u64>,
}

impl Signer {
    pub(super) fn new(secret: &[u8], service: &str) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[service]);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_SECONDS;
        Self {
            encoding: EncodingKey::from_secret(secret),
            decoding: DecodingKey::from_secret(secret),
            validation,
            service: service.to_owned(),
        }
    }

    /// The token and the seconds it lives.
    pub(super) fn sign(&self, contents: Contents) -> Result<(String, u64), jsonwebtoken::errors::Error> {
        let now = now_seconds();
        let exp = now + contents.life.as_secs();
        let exp = contents.end.map_or(exp, |end| exp.min(end));
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: self.service.clone(),
            sub: subject(&contents.identity),
            exp,
            nbf: now,
            iat: now,
            jti: hex::encode(rand::random::<[u8; 16]>()),
            purpose: contents.purpose,
            access: contents.access,
            credential: contents.credential,
            rules: contents.rules,
        };
        let token = encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)?;
        Ok((token, exp.saturating_sub(now)))
    }

    pub(super) fn verify(&self, token: &str) -> Result<Claims, jsonwebtoken::errors::Error> {
        Ok(decode::<Claims>(token, &self.decoding, &self.validation)?.claims)
    }
}

impl Claims {
    pub(super) fn identity(&self) -> Option<Identity> {
        match self.sub.split_once(':') {
            None if self.sub == "anonymous" => Some(Identity::Anonymous),
            Some(("user", name)) => Some(Identity::User(name.to_owned())),
            Some(("robot", name)) => Some(Identity::Robot(name.to_owned())),
            Some(("federated", rest)) => {
                let (provider, subject) = rest.split_once(':')?;
                Some(Identity::Federated {
                    provider: provider.to_owned(),
                    subject: subject.to_owned(),
                })
            }
            _ => None,
        }
    }
}

fn subject(identity: &Identity) -> String {
    match identity {
        Identity::Anonymous => "anonymous".to_owned(),
        Identity::User(name) => format!("user:{name}"),
        Identity::Robot(name) => format!("robot:{name}"),
        Identity::Federated { provider, subject } => format!("federated:{provider}:{subject}"),
        // Have tokens of their own and get none of ours.
        Identity::External(_) | Identity::Local => "none".to_owned(),
    }
}

pub(super) fn now_seconds() -> u64 {
    u64::try_from(now_micros() / 1_000_000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    fn contents(life: u64) -> Contents {
        Contents {
            identity: Identity::User("anna:b".to_owned()),
            purpose: Use::Access,
            access: Vec::new(),
            credential: "v".to_owned(),
            rules: Vec::new(),
            life: Duration::from_secs(life),
            end: None,
        }
    }

    #[test]
    fn only_what_this_key_signed_for_this_service_counts() {
        let signer = Signer::new(b"0123456789abcdef0123456789abcdef", "here");
        let (token, lives) = signer.sign(contents(60)).unwrap();
        assert_eq!(lives, 60);
        let claims = signer.verify(&token).unwrap();
        assert_eq!(claims.identity(), Some(Identity::User("anna:b".to_owned())));
        for other in [
            Signer::new(b"another key, another key, anothe", "here"),
            Signer::new(b"0123456789abcdef0123456789abcdef", "elsewhere"),
        ] {
            assert!(other.verify(&token).is_err());
        }
        let mut expired = contents(60);
        expired.end = Some(now_seconds() - 60);
        let (expired, _) = signer.sign(expired).unwrap();
        assert!(signer.verify(&expired).is_err());

        let parts: Vec<&str> = token.split('.').collect();
        let none = URL_SAFE_NO_PAD.encode(br#"{"alg":"none","typ":"JWT"}"#);
        assert!(signer.verify(&format!("{none}.{}.", parts[1])).is_err());
        assert!(
            signer
                .verify(&format!("{none}.{}.{}", parts[1], parts[2]))
                .is_err()
        );
        let other = URL_SAFE_NO_PAD.encode(br#"{"alg":"HS512","typ":"JWT"}"#);
        assert!(
            signer
                .verify(&format!("{other}.{}.{}", parts[1], parts[2]))
                .is_err()
        );
        assert!(signer.verify("").is_err() && signer.verify("a.b.c").is_err());
    }
}
