//! Content digests (image spec, descriptor.md, "Digests") and the streaming hasher that makes them.

use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Sha256, Sha512};

/// A validated content digest: `sha256:<64 hex digits>` or `sha512:<128 hex digits>`, lower case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    /// Shorter digests leave the tail zero, so that derived equality and order hold.
    bytes: [u8; 64],
}

/// The registered digest algorithms that Layeryard stores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    #[default]
    Sha256,
    Sha512,
}

/// Hashes a stream. Its state can be saved and taken up again by another process.
#[derive(Clone)]
pub enum Hasher {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

/// A saved [`Hasher`]: 1 byte format, 1 byte algorithm, then the hash function's own state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashState(Vec<u8>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    #[error("digest {0:?} has no algorithm: expected `sha256:<hex>` or `sha512:<hex>`")]
    NoAlgorithm(String),
    #[error("digest algorithm {0:?} is not supported: use sha256 or sha512")]
    UnsupportedAlgorithm(String),
    #[error("digest {digest:?} is malformed: {algorithm} needs {expected} lower-case hex digits")]
    Malformed {
        digest: String,
        algorithm: Algorithm,
        expected: usize,
    },
    #[error("saved hash state is of an unknown format or length")]
    UnknownState,
    #[error("stored digest of {0} bytes is of an unknown format")]
    UnknownBytes(usize),
}

impl Digest {
    /// The digest of `data`.
    pub fn of(algorithm: Algorithm, data: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(data);
        hasher.finish()
    }

    /// The sha256 digest of `data`.
    pub fn sha256(data: &[u8]) -> Self {
        Self::of(Algorithm::Sha256, data)
    }

    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hash value: 32 or 64 bytes.
    pub fn hash(&self) -> &[u8] {
        &self.bytes[..self.algorithm.hash_len()]
    }

    /// The hash value in lower-case hex.
    pub fn hex(&self) -> String {
        hex::encode(self.hash())
    }

    /// The first 12 hex digits, for people.
    pub fn short(&self) -> String {
        hex::encode(&self.bytes[..6])
    }

    /// The compact stored form: one algorithm byte and the hash value.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1 + self.algorithm.hash_len());
        out.push(self.algorithm.code());
        out.extend_from_slice(self.hash());
        out
    }

    /// Reads [`Digest::to_bytes`].
    pub fn from_bytes(stored: &[u8]) -> Result<Self, DigestError> {
        let algorithm = match stored.first() {
            Some(1) if stored.len() == 33 => Algorithm::Sha256,
            Some(2) if stored.len() == 65 => Algorithm::Sha512,
            _ => return Err(DigestError::UnknownBytes(stored.len())),
        };
        Ok(Self::from_hash(algorithm, &stored[1..]))
    }

    fn from_hash(algorithm: Algorithm, hash: &[u8]) -> Self {
        let mut bytes = [0; 64];
        bytes[..hash.len()].copy_from_slice(hash);
        Self { algorithm, bytes }
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (name, value) = text
            .split_once(':')
            .ok_or_else(|| DigestError::NoAlgorithm(text.to_owned()))?;
        let algorithm: Algorithm = name.parse()?;
        let malformed = || DigestError::Malformed {
            digest: text.to_owned(),
            algorithm,
            expected: algorithm.hash_len() * 2,
        };
        if value.len() != algorithm.hash_len() * 2 || value.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(malformed());
        }
        let mut bytes = [0; 64];
        hex::decode_to_slice(value, &mut bytes[..algorithm.hash_len()]).map_err(|_| malformed())?;
        Ok(Self { algorithm, bytes })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Algorithm {
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Bytes of a hash value.
    pub fn hash_len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha512 => 2,
        }
    }
}

impl FromStr for Algorithm {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        match text {
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            other => Err(DigestError::UnsupportedAlgorithm(other.to_owned())),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

const STATE_FORMAT: u8 = 1;

impl Hasher {
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Box::new(Sha512::new())),
        }
    }

    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    pub fn update(&mut self, data: &[u8]) {
        match self {
            Self::Sha256(inner) => inner.update(data),
            Self::Sha512(inner) => inner.update(data),
        }
    }

    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(inner) => Digest::from_hash(Algorithm::Sha256, &inner.finalize()),
            Self::Sha512(inner) => Digest::from_hash(Algorithm::Sha512, &inner.finalize()),
        }
    }

    pub fn save(&self) -> HashState {
        let mut out = vec![STATE_FORMAT, self.algorithm().code()];
        match self {
            Self::Sha256(inner) => out.extend_from_slice(&inner.serialize()),
            Self::Sha512(inner) => out.extend_from_slice(&inner.serialize()),
        }
        HashState(out)
    }

    pub fn restore(state: &HashState) -> Result<Self, DigestError> {
        let unknown = |_| DigestError::UnknownState;
        match state.0.split_at_checked(2) {
            Some(([STATE_FORMAT, 1], rest)) => {
                let state = SerializedState::<Sha256>::try_from(rest).map_err(unknown)?;
                Ok(Self::Sha256(
                    Sha256::deserialize(&state).map_err(|_| DigestError::UnknownState)?,
                ))
            }
            Some(([STATE_FORMAT, 2], rest)) => {
                let state = SerializedState::<Sha512>::try_from(rest).map_err(unknown)?;
                Ok(Self::Sha512(Box::new(
                    Sha512::deserialize(&state).map_err(|_| DigestError::UnknownState)?,
                )))
            }
            _ => Err(DigestError::UnknownState),
        }
    }
}

impl HashState {
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn text_and_stored_forms_round_trip() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let digest = Digest::of(algorithm, b"layer");
            assert_eq!(digest.to_string().parse(), Ok(digest));
            assert_eq!(Digest::from_bytes(&digest.to_bytes()), Ok(digest));
        }
        assert_eq!(Digest::sha256(b"").to_string(), EMPTY);
    }

    #[test]
    fn malformed_digests_are_refused_with_the_reason() {
        for (text, message) in [
            ("e3b0", "no algorithm"),
            ("md5:abcd", "not supported"),
            ("sha256:baddigeststring", "64 lower-case hex digits"),
            ("sha256:", "64 lower-case hex digits"),
            (
                &EMPTY.to_uppercase().replace("SHA256", "sha256"),
                "64 lower-case hex digits",
            ),
            (&format!("{EMPTY}00"), "64 lower-case hex digits"),
            (
                "sha256:../../../../../../../../../../../../../../../../../../../../etc/pas",
                "64 lower-case",
            ),
        ] {
            let error = text.parse::<Digest>().expect_err(text).to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    #[test]
    fn a_saved_hash_state_continues_elsewhere() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let mut first = Hasher::new(algorithm);
            first.update(&[7; 1000]);
            let mut second =
                Hasher::restore(&HashState::from_bytes(first.save().as_bytes().to_vec())).unwrap();
            second.update(b"tail");
            let whole = [vec![7; 1000], b"tail".to_vec()].concat();
            assert_eq!(second.finish(), Digest::of(algorithm, &whole));
        }
        assert!(Hasher::restore(&HashState::from_bytes(vec![9, 1, 0])).is_err());
    }

    /// Upload sessions outlive upgrades: a changed layout of the hash crate's state must bring a new format number.
    #[test]
    fn the_saved_state_has_its_golden_layout() {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(b"abc");
        let state = hasher.save();
        assert_eq!(state.as_bytes().len(), 2 + 104);
        assert_eq!(Digest::sha256(state.as_bytes()).short(), "361c733e4875");
    }
}
