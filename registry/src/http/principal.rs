//! Who sent a request: credentials to a [`Principal`].

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, header};
use oci::RepoName;

use super::{ApiError, AppState, Code};
use crate::config::Anonymous;
use crate::service::{Action, Principal, RegistryError};

/// The listener a request came by; an extension of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// A TCP listener, with what callers without credentials may do there.
    Tcp(Anonymous),
    /// The worker's unix socket: no request without a token.
    Socket,
}

impl AppState {
    pub(crate) fn principal(&self, via: Via, headers: &HeaderMap) -> Result<Principal, ApiError> {
        let Some(credentials) = headers.get(header::AUTHORIZATION) else {
            return match via {
                Via::Tcp(anonymous) => Ok(Principal::Anonymous(anonymous)),
                Via::Socket => Err(unauthorized("this socket needs a token")),
            };
        };
        let text = credentials.to_str().unwrap_or_default();
        match text.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => self
                .tokens
                .find(token.trim())
                .ok_or_else(|| unauthorized("token is not known or no longer valid")),
            // There are no users yet. Clients send what they have for this host; refusing would lock them out of
            // what everybody may do.
            _ => match via {
                Via::Tcp(anonymous) => Ok(Principal::Anonymous(anonymous)),
                Via::Socket => Err(unauthorized("this socket needs a bearer token")),
            },
        }
    }
}

fn unauthorized(message: &str) -> ApiError {
    ApiError::new(Code::Unauthorized, message)
        .with_header(header::WWW_AUTHENTICATE, "Bearer realm=\"layeryard\"")
}

impl Principal {
    /// Passes where the action is granted.
    pub(crate) fn require(&self, action: Action, repository: &RepoName) -> Result<(), RegistryError> {
        if self.may(action, repository) {
            return Ok(());
        }
        Err(RegistryError::Denied {
            actor: self.actor(),
            repository: repository.clone(),
        })
    }

    /// Passes for those who may run the whole server.
    pub(crate) fn require_admin(&self) -> Result<(), RegistryError> {
        if self.is_admin() {
            return Ok(());
        }
        Err(RegistryError::NotAdmin { actor: self.actor() })
    }
}

impl FromRequestParts<AppState> for Principal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        // Without the extension nobody said how the request came: the strictest rule.
        let via = parts.extensions.get::<Via>().copied().unwrap_or(Via::Socket);
        state.principal(via, &parts.headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_run_by_those_who_may_do_everything() {
        assert!(Principal::Anonymous(Anonymous::ReadWrite).require_admin().is_ok());
        assert!(Principal::Anonymous(Anonymous::ReadOnly).require_admin().is_err());
        assert!(Principal::Worker.require_admin().is_err());
    }
}
