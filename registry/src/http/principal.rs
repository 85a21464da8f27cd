//! Who sent a request: credentials to a [`Principal`], and how to show some where they are missing.

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use oci::RepoName;

use super::record::Noted;
use super::{ApiError, AppState, Code};
use crate::service::access::{AccessError, Arrival, Shown};
use crate::service::{Action, Principal, RegistryError};

const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_PROTO: &str = "x-forwarded-proto";

impl AppState {
    pub(super) async fn principal(
        &self,
        arrival: &Arrival,
        headers: &HeaderMap,
    ) -> Result<Principal, ApiError> {
        let shown = Shown {
            arrival,
            authorization: headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes),
        };
        Ok(self.gate.authenticate(shown).await?)
    }

    /// The arrival with the address that a trusted proxy tells: the last one that no trusted proxy has.
    pub(super) fn seen_through_proxies(&self, mut arrival: Arrival, headers: &HeaderMap) -> Arrival {
        let access = &self.gate.config;
        let trusted = |address: &IpAddr| access.is_trusted_proxy(*address);
        if access.trusted_proxies.is_empty() || !arrival.address.as_ref().is_some_and(trusted) {
            return arrival;
        }
        let values = headers.get_all(FORWARDED_FOR).into_iter();
        let values: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
        for text in values.join(",").rsplit(',') {
            let Ok(address) = text.trim().parse::<IpAddr>() else {
                break;
            };
            arrival.address = Some(address);
            if !trusted(&address) {
                break;
            }
        }
        arrival
    }

    /// Whether a request that was refused for want of rights could have shown who sends it.
    pub(super) fn could_log_in(&self, arrival: &Arrival, headers: &HeaderMap) -> bool {
        self.gate.is_guarded()
            && !arrival.socket
            && arrival.certificate.is_none()
            && !headers.contains_key(header::AUTHORIZATION)
    }

    /// How to show who one is: where tokens are, and which is needed.
    pub(super) fn challenge(&self, asked: &Asked, scope: Option<&str>) -> HeaderValue {
        let token = &self.gate.token;
        let (realm, service) = match (&token.external, &token.realm, asked.host()) {
            (Some(external), ..) => (external.realm.clone(), external.service.clone()),
            (None, Some(realm), _) => (realm.clone(), token.service.clone()),
            (None, None, Some(host)) => {
                let scheme = if asked.secure { "https" } else { "http" };
                (format!("{scheme}://{host}/token"), token.service.clone())
            }
            (None, None, None) => return HeaderValue::from_static("Basic realm=\"layeryard\""),
        };
        let mut text = format!("Bearer realm=\"{realm}\",service=\"{service}\"");
        if let Some(scope) = scope {
            text.push_str(&format!(",scope=\"{scope}\""));
        }
        match (asked.had_credentials, scope) {
            (true, Some(_)) => text.push_str(",error=\"insufficient_scope\""),
            (true, None) => text.push_str(",error=\"invalid_token\""),
            (false, _) => {}
        }
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("Basic realm=\"layeryard\""))
    }
}

/// What of a request a challenge depends on. Made for every request, so that nothing is copied or looked at yet.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    host: Option<HeaderValue>,
    authority: Option<Authority>,
    secure: bool,
    had_credentials: bool,
}

impl Asked {
    pub(super) fn of(uri: &Uri, headers: &HeaderMap, arrival: &Arrival) -> Self {
        let proto = headers.get(FORWARDED_PROTO);
        Self {
            host: headers.get(header::HOST).cloned(),
            authority: uri.authority().cloned(),
            secure: arrival.tls || proto.is_some_and(|proto| proto == "https"),
            had_credentials: headers.contains_key(header::AUTHORIZATION),
        }
    }

    /// The host that was called. It goes back into a header of whoever sent it: nothing but a host may.
    fn host(&self) -> Option<&str> {
        let named = self.host.as_ref().and_then(|host| host.to_str().ok());
        let host = named.or(self.authority.as_ref().map(Authority::as_str))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
        (!host.is_empty() && host.chars().all(plain)).then_some(host)
    }
}

impl From<AccessError> for ApiError {
    fn from(error: AccessError) -> Self {
        match &error {
            AccessError::TooMany { wait } => Self::new(Code::TooManyRequests, error.to_string())
                .with_header(header::RETRY_AFTER, (wait.as_secs() + 1).to_string()),
            AccessError::Sign(_) => Self::internal(&error),
            AccessError::Socket => Self::new(Code::Unauthorized, error.to_string())
                .with_header(header::WWW_AUTHENTICATE, "Bearer realm=\"layeryard\""),
            _ => Self::new(Code::Unauthorized, error.to_string()),
        }
    }
}

impl Principal {
    /// Passes where the action is granted. What is there plays no part: who may not pull learns nothing.
    pub(crate) fn require(&self, action: Action, repository: &RepoName) -> Result<(), RegistryError> {
        if self.may(action, repository) {
            return Ok(());
        }
        if self
            .client()
            .is_some_and(|client| client.may_unscoped(action, repository))
        {
            return Err(RegistryError::ScopeTooSmall {
                action,
                repository: repository.clone(),
            });
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

/// For refusals to callers who have not said who they are.
pub(super) fn log_in_first(status: StatusCode) -> StatusCode {
    if status == StatusCode::FORBIDDEN {
        StatusCode::UNAUTHORIZED
    } else {
        status
    }
}

impl FromRequestParts<AppState> for Principal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        // Without the extension nobody said how the request came: the strictest rule.
        let unknown = Arrival {
            socket: true,
            ..Arrival::default()
        };
        let arrival = parts.extensions.get::<Arrival>().unwrap_or(&unknown);
        let principal = state.principal(arrival, &parts.headers).await?;
        if state.could_log_in(arrival, &parts.headers) && !principal.may_anything() {
            // Whatever they ask for: not even what is wrong with their question concerns them.
            return Err(ApiError::new(Code::Unauthorized, "show who you are"));
        }
        if let Some(noted) = parts.extensions.get::<Noted>() {
            noted.note(&principal);
        }
        Ok(principal)
    }
}
