//! Who we are to a registry: nothing, Basic, a token from its token server, or a fixed bearer token.

mod challenge;
mod scope;
mod token;

use std::collections::HashMap;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use reqwest::header::{HeaderMap, HeaderValue};

use crate::api::Credential;
use crate::endpoint::Access;
use crate::error::{Error, Place};
use crate::http_pool::Http;
use challenge::Challenge;
pub(crate) use scope::Scopes;
use token::{Token, TokenServer};

/// A registry's authentication state, shared by all requests to it.
pub(crate) struct Auth {
    access: Access,
    /// The registry itself is spoken to in plain HTTP, so its token server may be too.
    plain_http: bool,
    state: Mutex<State>,
    /// Held while a token is fetched, so that parallel requests don't all fetch one.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// What the registry asked for last; unknown until its first 401.
    scheme: Option<Scheme>,
    /// What the registry asked for beyond the scopes a request came with.
    extra: HashMap<Scopes, Scopes>,
    tokens: HashMap<(TokenServer, Scopes), Token>,
}

#[derive(Clone)]
enum Scheme {
    Basic,
    Bearer(TokenServer),
}

impl Auth {
    pub(crate) fn new(access: Access, plain_http: bool) -> Self {
        Self {
            access,
            plain_http,
            state: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        }
    }

    /// The `Authorization` header for a request, as far as the registry has said what it wants.
    pub(crate) async fn header(
        &self,
        http: &Http,
        place: &Place,
        scopes: &Scopes,
    ) -> Result<Option<HeaderValue>, Error> {
        if let Access::Bearer(token) = &self.access {
            return secret_header(place, format!("Bearer {token}")).map(Some);
        }
        let (scheme, extra) = {
            let state = self.state.lock();
            (state.scheme.clone(), state.extra.get(scopes).cloned())
        };
        match (scheme, self.credential()) {
            (None, _) | (Some(Scheme::Basic), None | Some(Credential::IdentityToken(_))) => Ok(None),
            (Some(Scheme::Basic), Some(Credential::Basic { username, password })) => {
                secret_header(place, basic(username, password)).map(Some)
            }
            (Some(Scheme::Bearer(server)), _) => {
                let scopes = scopes.clone().and(extra.unwrap_or_default());
                let token = self.token(http, place, server, scopes).await?;
                secret_header(place, format!("Bearer {token}")).map(Some)
            }
        }
    }

    /// Learns from a 401. Returns whether asking again can help: the registry wants something that was not given yet.
    pub(crate) fn learn(&self, place: &Place, answer: &HeaderMap, scopes: &Scopes) -> Result<bool, Error> {
        if matches!(self.access, Access::Bearer(_)) {
            return Ok(false);
        }
        let offered = challenge::challenges(answer);
        let bearer = offered.iter().find_map(|challenge| match challenge {
            Challenge::Bearer {
                realm,
                service,
                scope,
            } => Some((realm, service, scope)),
            Challenge::Basic => None,
        });
        let mut state = self.state.lock();
        if let Some((realm, service, scope)) = bearer {
            let server = TokenServer::new(place, realm, service.clone(), self.plain_http)?;
            let asked = scope.as_deref().map(Scopes::parse).unwrap_or_default();
            let wanted = scopes.clone().and(asked.clone());
            if wanted != *scopes {
                state.extra.insert(scopes.clone(), asked);
            }
            state.tokens.remove(&(server.clone(), wanted));
            state.scheme = Some(Scheme::Bearer(server));
            return Ok(true);
        }
        let basic = offered.contains(&Challenge::Basic);
        if basic && matches!(self.credential(), Some(Credential::Basic { .. })) {
            // Also when it was known: this request may have left before another one learned it. Callers ask once.
            state.scheme = Some(Scheme::Basic);
            return Ok(true);
        }
        Ok(false)
    }

    fn credential(&self) -> Option<&Credential> {
        match &self.access {
            Access::Credential(credential) => Some(credential),
            Access::Anonymous | Access::Bearer(_) => None,
        }
    }

    async fn token(
        &self,
        http: &Http,
        place: &Place,
        server: TokenServer,
        scopes: Scopes,
    ) -> Result<String, Error> {
        let key = (server, scopes);
        let cached = || {
            let state = self.state.lock();
            let token = state.tokens.get(&key)?;
            (token.expires_at > Instant::now()).then(|| token.value.clone())
        };
        if let Some(value) = cached() {
            return Ok(value);
        }
        let _fetching = self.fetching.lock().await;
        if let Some(value) = cached() {
            return Ok(value);
        }
        let token = key.0.fetch(http, place, &key.1, self.credential()).await?;
        let value = token.value.clone();
        let mut state = self.state.lock();
        state.tokens.retain(|_, token| token.expires_at > Instant::now());
        state.tokens.insert(key, token);
        Ok(value)
    }
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

fn secret_header(place: &Place, text: String) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::try_from(text).map_err(|_| Error::Protocol {
        place: place.clone(),
        detail: "the token holds characters that no header may have".to_owned(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}
