//! What can go wrong with another registry. Every error names the host and the object, and what to do where that is
//! known.

use std::fmt;

use oci::Digest;
use reqwest::StatusCode;

use crate::api::{ErrorBody, ErrorItem};
use crate::credentials::CredentialError;
use crate::guard::AddressRefused;

/// How much of an error's body is read.
const ERROR_BODY_BYTES_MAX: usize = 64 * 1024;

/// The object of a request and the registry that was asked: `team/app:1 at ghcr.io`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub host: String,
    pub what: String,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("registry address {0:?} is invalid: expected HOST, HOST:PORT or an http(s) URL")]
    Address(String),
    #[error("cannot set up the HTTP client: {reason}")]
    Setup {
        reason: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("cannot reach {place}: {reason}")]
    Unreachable {
        place: Place,
        reason: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("{place}: no answer within {seconds} s")]
    TimedOut { place: Place, seconds: u64 },
    #[error("{place}: not authorized ({message}){}", login_text(place))]
    Unauthorized { place: Place, message: String },
    #[error("{place}: access denied ({message}): use an account that may do this")]
    Denied { place: Place, message: String },
    #[error("{place}: not found ({message})")]
    NotFound { place: Place, message: String },
    #[error("{place}: too many requests ({message}){}: log in with `docker login {}` for a higher limit or try later", retry_text(*.retry_after_seconds), place.host)]
    RateLimited {
        place: Place,
        message: String,
        retry_after_seconds: Option<u64>,
    },
    #[error("{place}: answered {status} {code}: {message}")]
    Answer {
        place: Place,
        status: StatusCode,
        code: String,
        message: String,
    },
    #[error(
        "{place}: the content has digest {actual}, expected {expected}: it was altered or damaged on the way"
    )]
    DigestMismatch {
        place: Place,
        expected: Box<Digest>,
        actual: Box<Digest>,
    },
    #[error("{place}: {actual} bytes came, expected {expected}")]
    SizeMismatch {
        place: Place,
        expected: u64,
        actual: u64,
    },
    #[error("{place}: larger than {limit_bytes} bytes, the limit for this kind of content")]
    TooLarge { place: Place, limit_bytes: u64 },
    #[error("{place}: the answer is not what the specification says: {detail}")]
    Protocol { place: Place, detail: String },
    #[error("{place}: {source}")]
    Manifest {
        place: Place,
        #[source]
        source: oci::ManifestError,
    },
    #[error("{place}: has no image for platform {platform}, only for {offered}")]
    NoPlatform {
        place: Place,
        platform: String,
        offered: String,
    },
    #[error("{place}: {source}")]
    AddressRefused {
        place: Place,
        #[source]
        source: AddressRefused,
    },
    #[error("{place}: refuses to send credentials to the token server {realm:?}: {reason}")]
    Realm {
        place: Place,
        realm: String,
        reason: &'static str,
    },
    #[error("{place}: redirects to {location:?}, which is not followed: {reason}")]
    Redirect {
        place: Place,
        location: String,
        reason: &'static str,
    },
    #[error("{place}: cannot read what is to be sent: {source}")]
    Source {
        place: Place,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Credentials(#[from] CredentialError),
}

impl Error {
    /// The place it is about, where there is one.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Address(_) | Self::Setup { .. } | Self::Credentials(_) => None,
            Self::Unreachable { place, .. }
            | Self::TimedOut { place, .. }
            | Self::Unauthorized { place, .. }
            | Self::Denied { place, .. }
            | Self::NotFound { place, .. }
            | Self::RateLimited { place, .. }
            | Self::Answer { place, .. }
            | Self::DigestMismatch { place, .. }
            | Self::SizeMismatch { place, .. }
            | Self::TooLarge { place, .. }
            | Self::Protocol { place, .. }
            | Self::Manifest { place, .. }
            | Self::NoPlatform { place, .. }
            | Self::AddressRefused { place, .. }
            | Self::Realm { place, .. }
            | Self::Redirect { place, .. }
            | Self::Source { place, .. } => Some(place),
        }
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether the registry could not be asked or is in trouble, as opposed to having given an answer: what is held
    /// locally may be used instead.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::RateLimited { .. } => true,
            Self::Answer { status, .. } => status.is_server_error(),
            _ => false,
        }
    }

    pub(crate) fn unreachable(place: Place, source: reqwest::Error) -> Self {
        if let Some(refused) = refusal(&source) {
            return Self::AddressRefused {
                place,
                source: refused.clone(),
            };
        }
        let reason = root_cause(&source);
        Self::Unreachable {
            place,
            reason,
            source,
        }
    }

    /// Reads the error out of an answer that is not the one hoped for.
    pub(crate) async fn from_answer(place: Place, response: reqwest::Response) -> Self {
        let status = response.status();
        let retry_after_seconds = crate::retry::retry_after(response.headers()).map(|wait| wait.as_secs());
        let body = read_prefix(response).await;
        let ErrorItem { code, message, .. } = first_item(&body, status);
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthorized { place, message },
            StatusCode::FORBIDDEN => Self::Denied { place, message },
            StatusCode::NOT_FOUND => Self::NotFound { place, message },
            StatusCode::TOO_MANY_REQUESTS => Self::RateLimited {
                place,
                message,
                retry_after_seconds,
            },
            _ => Self::Answer {
                place,
                status,
                code,
                message,
            },
        }
    }
}

impl Place {
    pub fn new(host: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            what: what.into(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.what.is_empty() {
            return f.write_str(&self.host);
        }
        write!(f, "{} at {}", self.what, self.host)
    }
}

/// What to do about a 401. Behind a socket there is no login, only a token that has ended.
fn login_text(place: &Place) -> String {
    if place.host.starts_with('/') {
        return String::new();
    }
    format!(
        ": it does not exist or needs a login: log in with `docker login {}`",
        place.host
    )
}

fn retry_text(seconds: Option<u64>) -> String {
    match seconds {
        Some(seconds) => format!(", it asks to wait {seconds} s"),
        None => String::new(),
    }
}

/// reqwest's own message only says that a request failed; the cause is at the end of the chain.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// The guard's refusal, where that is why a connection was not made.
fn refusal(error: &reqwest::Error) -> Option<&AddressRefused> {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(refused) = inner.downcast_ref() {
            return Some(refused);
        }
        cause = inner.source();
    }
    None
}

async fn read_prefix(mut response: reqwest::Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() >= ERROR_BODY_BYTES_MAX {
            body.truncate(ERROR_BODY_BYTES_MAX);
            break;
        }
    }
    body
}

/// The first error of a body; token servers and proxies answer in shapes of their own.
fn first_item(body: &[u8], status: StatusCode) -> ErrorItem {
    let reason = status.canonical_reason().unwrap_or("unknown status");
    let item = serde_json::from_slice::<ErrorBody>(body)
        .ok()
        .and_then(|body| body.errors.into_iter().next());
    let mut item = item.unwrap_or_else(|| ErrorItem {
        code: String::new(),
        message: String::new(),
        detail: None,
    });
    if item.message.is_empty() {
        item.message = if item.code.is_empty() {
            reason.to_ascii_lowercase()
        } else {
            item.code.clone()
        };
    }
    if item.code.is_empty() {
        item.code = reason.to_owned();
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_host_object_and_remedy() {
        let place = Place::new("ghcr.io", "x/y:1");
        let unauthorized = Error::Unauthorized {
            place: place.clone(),
            message: "no token".into(),
        };
        assert!(unauthorized.to_string().contains("x/y:1 at ghcr.io"));
        assert!(unauthorized.to_string().contains("docker login ghcr.io"));
        let limited = Error::RateLimited {
            place,
            message: "slow down".into(),
            retry_after_seconds: Some(7),
        };
        assert!(limited.to_string().contains("wait 7 s"));
    }

    #[test]
    fn foreign_error_bodies_still_give_a_message() {
        let item = first_item(b"<html>", StatusCode::BAD_GATEWAY);
        assert_eq!(
            (item.code.as_str(), item.message.as_str()),
            ("Bad Gateway", "bad gateway")
        );
        let item = first_item(
            br#"{"errors":[{"code":"DENIED","message":""}]}"#,
            StatusCode::FORBIDDEN,
        );
        assert_eq!((item.code.as_str(), item.message.as_str()), ("DENIED", "DENIED"));
    }
}
