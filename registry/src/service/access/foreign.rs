//! Tokens that others sign: the public keys that we believe, and how a token is checked against them. What a token says
//! of its own key (`jwk`, `x5c`, `jku`) is not looked at, and a key decides which algorithms it is for.

use std::io;
use std::path::{Path, PathBuf};

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet, KeyAlgorithm};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::de::DeserializeOwned;

/// By how much the issuer's clock may differ.
const LEEWAY_SECONDS: u64 = 60;
/// Keys that a token without a key's name is tried with.
const KEYS_TRIED_MAX: usize = 8;

/// The public keys of an issuer.
#[derive(Clone, Default)]
pub(super) struct KeySet {
    keys: Vec<PublicKey>,
}

#[derive(Clone)]
struct PublicKey {
    id: Option<String>,
    key: DecodingKey,
    algorithms: Vec<Algorithm>,
}

/// Whose tokens, and for whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) audience: &'a str,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("cannot read the keys in {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the keys in {} are neither a JWKS nor a public key in PEM", path.display())]
    Unreadable { path: PathBuf },
    #[error("the token's key is not known")]
    UnknownKey,
    #[error("the token is not valid: {0}")]
    Invalid(#[from] jsonwebtoken::errors::Error),
}

impl KeySet {
    pub(super) fn read(path: &Path) -> Result<Self, KeyError> {
        let bytes = std::fs::read(path).map_err(|source| KeyError::Read {
            path: path.to_owned(),
            source,
        })?;
        let set = Self::parse(&bytes);
        set.filter(|set| !set.keys.is_empty())
            .ok_or_else(|| KeyError::Unreadable {
                path: path.to_owned(),
            })
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        if let Ok(set) = serde_json::from_slice::<JwkSet>(bytes) {
            return Some(Self::of(&set));
        }
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        let key = |key: DecodingKey, algorithms: &[Algorithm]| Self {
            keys: vec![PublicKey {
                id: None,
                key,
                algorithms: algorithms.to_vec(),
            }],
        };
        if let Ok(rsa) = DecodingKey::from_rsa_pem(bytes) {
            return Some(key(rsa, &[RS256, RS384, RS512, PS256, PS384, PS512]));
        }
        if let Ok(ec) = DecodingKey::from_ec_pem(bytes) {
            return Some(key(ec, &[ES256, ES384]));
        }
        DecodingKey::from_ed_pem(bytes).ok().map(|ed| key(ed, &[EdDSA]))
    }

    /// The signing keys of a set; those of unknown kinds, and secrets, are left out.
    pub(super) fn of(set: &JwkSet) -> Self {
        Self {
            keys: set.keys.iter().filter_map(public_key).collect(),
        }
    }

    pub(super) fn knows(&self, token: &str) -> bool {
        let Ok(header) = decode_header(token) else {
            return true;
        };
        header.kid.is_none() || self.keys.iter().any(|key| key.id == header.kid)
    }

    /// Checks signature, issuer, audience and times.
    pub(super) fn verify<T: DeserializeOwned + Clone>(
        &self,
        token: &str,
        expected: Expected<'_>,
    ) -> Result<T, KeyError> {
        let header = decode_header(token)?;
        let named = |key: &&PublicKey| header.kid.is_none() || key.id.is_none() || key.id == header.kid;
        let mut refused = KeyError::UnknownKey;
        for key in self.keys.iter().filter(named).take(KEYS_TRIED_MAX) {
            let mut validation = Validation::new(header.alg);
            validation.algorithms.clone_from(&key.algorithms);
            validation.set_issuer(&[expected.issuer]);
            validation.set_audience(&[expected.audience]);
            validation.set_required_spec_claims(&["exp", "aud", "iss"]);
            validation.validate_nbf = true;
            validation.leeway = LEEWAY_SECONDS;
            match decode::<T>(token, &key.key, &validation) {
                Ok(data) => return Ok(data.claims),
                Err(error) => refused = error.into(),
            }
        }
        Err(refused)
    }
}

fn public_key(jwk: &Jwk) -> Option<PublicKey> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let of_kind: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[RS256, RS384, RS512, PS256, PS384, PS512],
        AlgorithmParameters::EllipticCurve(_) => &[ES256, ES384],
        AlgorithmParameters::OctetKeyPair(_) => &[EdDSA],
        // A secret that is published is none.
        _ => return None,
    };
    let said = match jwk.common.key_algorithm {
        Some(KeyAlgorithm::RS256) => Some(RS256),
        Some(KeyAlgorithm::RS384) => Some(RS384),
        Some(KeyAlgorithm::RS512) => Some(RS512),
        Some(KeyAlgorithm::PS256) => Some(PS256),
        Some(KeyAlgorithm::PS384) => Some(PS384),
        Some(KeyAlgorithm::PS512) => Some(PS512),
        Some(KeyAlgorithm::ES256) => Some(ES256),
        Some(KeyAlgorithm::ES384) => Some(ES384),
        Some(KeyAlgorithm::EdDSA) => Some(EdDSA),
        _ => None,
    };
    let algorithms = match said {
        Some(said) => of_kind
            .iter()
            .copied()
            .filter(|algorithm| *algorithm == said)
            .collect(),
        None => of_kind.to_vec(),
    };
    Some(PublicKey {
        id: jwk.common.key_id.clone(),
        key: DecodingKey::from_jwk(jwk).ok()?,
        algorithms,
    })
}
