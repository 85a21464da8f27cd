//! Passwords: stored as argon2 or bcrypt, checked two at a time, since each check takes tens of MB and ms by design.

use argon2::{Argon2, PasswordHasher as _, PasswordVerifier as _};
use oci::Digest;
use tokio::sync::Semaphore;

/// Checks at once: each takes 19 MiB with the default parameters.
const CHECKS_AT_ONCE: usize = 2;
/// Longer ones are refused unread: nobody has them, and hashing takes time.
pub(super) const PASSWORD_LEN_MAX: usize = 1024;

/// Checked where there is no such user, so that the time an answer takes tells nobody who exists. Of a password that was
/// made up and forgotten; not made at every start, because that would cost each server 19 MiB for good.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AU/cqSjb8vX7kBs+ql946Q$9L6GXbX82aTVa9kEFvy4bTlUziZcum5YvVuG+PA41E4";

pub(super) struct Passwords {
    checks: Semaphore,
}

/// A password as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredPassword(String);

#[derive(Debug, thiserror::Error)]
pub(crate) enum PasswordError {
    #[error(
        "a password's hash is neither bcrypt nor argon2: make one with `htpasswd -B` or `layeryard user password`"
    )]
    Unknown,
    #[error("hashing a password failed")]
    Hash(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("a password has 1 to {PASSWORD_LEN_MAX} bytes")]
    Length,
}

impl StoredPassword {
    pub(crate) fn new(text: &str) -> Result<Self, PasswordError> {
        let bcrypt = ["$2a$", "$2b$", "$2y$", "$2x$"]
            .iter()
            .any(|kind| text.starts_with(kind));
        let known = if bcrypt {
            text.parse::<bcrypt::HashParts>().is_ok()
        } else {
            text.starts_with("$argon2") && argon2::PasswordHash::new(text).is_ok()
        };
        if known {
            Ok(Self(text.to_owned()))
        } else {
            Err(PasswordError::Unknown)
        }
    }

    /// Changes with the password.
    pub(crate) fn version(&self) -> String {
        hex::encode(&Digest::sha256(self.0.as_bytes()).to_bytes()[1..9])
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    fn verify(&self, password: &str) -> bool {
        if self.0.starts_with("$argon2") {
            return Argon2::default()
                .verify_password(password.as_bytes(), self.0.as_str())
                .is_ok();
        }
        bcrypt::verify(password, &self.0).unwrap_or(false)
    }
}

impl Passwords {
    pub(super) fn new() -> Self {
        Self {
            checks: Semaphore::new(CHECKS_AT_ONCE),
        }
    }

    /// Whether a password is the stored one; without one a check is made all the same.
    pub(super) async fn check(&self, stored: Option<&StoredPassword>, password: &str) -> bool {
        let known = stored.is_some();
        let stored = stored
            .cloned()
            .unwrap_or_else(|| StoredPassword(NOBODY.to_owned()));
        let password = password.to_owned();
        self.run(move || stored.verify(&password)).await.unwrap_or(false) && known
    }

    pub(super) async fn hash(&self, password: &str) -> Result<StoredPassword, PasswordError> {
        if password.is_empty() || password.len() > PASSWORD_LEN_MAX {
            return Err(PasswordError::Length);
        }
        let password = password.to_owned();
        let hashed = self.run(move || hash(&password)).await;
        hashed.unwrap_or(Err(PasswordError::Unknown)).map(StoredPassword)
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let _permit = self.checks.acquire().await.ok()?;
        tokio::task::spawn_blocking(work).await.ok()
    }
}

fn hash(password: &str) -> Result<String, PasswordError> {
    let hashed = Argon2::default().hash_password(password.as_bytes());
    hashed
        .map(|hash| hash.to_string())
        .map_err(|error| PasswordError::Hash(error.to_string().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_kinds_are_checked_and_others_refused() {
        let passwords = Passwords::new();
        let argon2 = passwords.hash("secret").await.unwrap();
        assert!(argon2.as_str().starts_with("$argon2id$"), "{}", argon2.as_str());
        let bcrypt = StoredPassword::new(&bcrypt::hash("secret", 4).unwrap()).unwrap();
        for stored in [&argon2, &bcrypt] {
            assert!(passwords.check(Some(stored), "secret").await);
            assert!(!passwords.check(Some(stored), "Secret").await);
        }
        assert!(!passwords.check(None, "").await);
        // Checking nobody's password takes as long as checking one of today's.
        let cost = |text: &str| text.rsplitn(3, '$').last().map(str::to_owned);
        assert_eq!(cost(NOBODY), cost(argon2.as_str()));
        assert_ne!(argon2.version(), bcrypt.version());
        for text in [
            "",
            "secret",
            "$apr1$x$y",
            "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
            "$2y$",
            "$argon2id$nonsense",
        ] {
            assert!(StoredPassword::new(text).is_err(), "{text}");
        }
        assert!(passwords.hash("").await.is_err());
        assert!(passwords.hash(&"x".repeat(PASSWORD_LEN_MAX + 1)).await.is_err());
    }
}
