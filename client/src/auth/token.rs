//! Token servers (distribution's "Token Authentication Specification").

use std::time::{Duration, Instant};

use serde::Deserialize;
use url::Url;

use super::{Scopes, basic, secret_header};
use crate::api::Credential;
use crate::error::{Error, Place};
use crate::http_pool::Http;
use crate::retry;

/// What a token without `expires_in` lives (the specification's default).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// Tokens are renewed this long before they end.
const RENEW_BEFORE: Duration = Duration::from_secs(10);
/// The longest answer of a token server.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// How long a token server may take.
const TIMEOUT: Duration = Duration::from_secs(30);
const CLIENT_ID: &str = "layeryard";

/// Where tokens come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TokenServer {
    realm: Url,
    service: Option<String>,
}

pub(super) struct Token {
    pub(super) value: String,
    pub(super) expires_at: Instant,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<f64>,
}

impl TokenServer {
    /// Accepts a realm unless it would carry credentials in clear text where the registry itself does not.
    pub(super) fn new(
        place: &Place,
        realm: &str,
        service: Option<String>,
        registry_is_plain: bool,
    ) -> Result<Self, Error> {
        let refuse = |reason| Error::Realm {
            place: place.clone(),
            realm: realm.to_owned(),
            reason,
        };
        let realm: Url = realm.parse().map_err(|_| refuse("it is not a URL"))?;
        match realm.scheme() {
            "https" => {}
            "http" if registry_is_plain => {}
            "http" => return Err(refuse("it is not encrypted, but the registry is")),
            _ => return Err(refuse("it is not an https URL")),
        }
        if realm.host().is_none() || !realm.username().is_empty() || realm.password().is_some() {
            return Err(refuse("it has no host, or a user name"));
        }
        Ok(Self { realm, service })
    }

    pub(super) async fn fetch(
        &self,
        http: &Http,
        place: &Place,
        scopes: &Scopes,
        credential: Option<&Credential>,
    ) -> Result<Token, Error> {
        let _admission = http.admit(&self.realm, place)?;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let sent = self.request(http, place, scopes, credential)?.send().await;
            let pause = match &sent {
                Ok(answer) if retry::is_transient(answer.status()) => {
                    retry::pause(attempt, Some(answer.headers()))
                }
                Ok(_) => None,
                Err(_) => retry::pause(attempt, None),
            };
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
                continue;
            }
            let answer = sent.map_err(|source| Error::unreachable(self.place(place), source))?;
            if !answer.status().is_success() {
                return Err(Error::from_answer(place.clone(), answer).await);
            }
            return self.read(place, answer).await;
        }
    }

    fn request(
        &self,
        http: &Http,
        place: &Place,
        scopes: &Scopes,
        credential: Option<&Credential>,
    ) -> Result<reqwest::RequestBuilder, Error> {
        if let Some(Credential::IdentityToken(refresh_token)) = credential {
            let scope = scopes.texts().join(" ");
            let mut form = vec![
                ("grant_type", "refresh_token"),
                ("client_id", CLIENT_ID),
                ("refresh_token", refresh_token),
                ("scope", &scope),
            ];
            form.extend(self.service.as_deref().map(|service| ("service", service)));
            return Ok(http
                .client(&self.realm)?
                .post(self.realm.clone())
                .timeout(TIMEOUT)
                .form(&form));
        }
        let mut url = self.realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = &self.service {
                query.append_pair("service", service);
            }
            for scope in scopes.texts() {
                query.append_pair("scope", &scope);
            }
            if let Some(Credential::Basic { username, .. }) = credential {
                query.append_pair("account", username);
            }
        }
        let mut request = http.client(&self.realm)?.get(url).timeout(TIMEOUT);
        if let Some(Credential::Basic { username, password }) = credential {
            let header = secret_header(place, basic(username, password))?;
            request = request.header(reqwest::header::AUTHORIZATION, header);
        }
        Ok(request)
    }

    async fn read(&self, place: &Place, mut response: reqwest::Response) -> Result<Token, Error> {
        let mut body = Vec::new();
        let chunk = |source| Error::unreachable(self.place(place), source);
        while let Some(bytes) = response.chunk().await.map_err(chunk)? {
            body.extend_from_slice(&bytes);
            if body.len() > ANSWER_BYTES_MAX {
                return Err(Error::TooLarge {
                    place: self.place(place),
                    limit_bytes: ANSWER_BYTES_MAX as u64,
                });
            }
        }
        let protocol = |detail: String| Error::Protocol {
            place: self.place(place),
            detail,
        };
        let answer: Answer = serde_json::from_slice(&body).map_err(|error| protocol(error.to_string()))?;
        let value = answer
            .token
            .filter(|token| !token.is_empty())
            .or(answer.access_token)
            .filter(|token| !token.is_empty())
            .ok_or_else(|| protocol("it has neither token nor access_token".to_owned()))?;
        let life = answer
            .expires_in
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .filter(|life| !life.is_zero())
            .unwrap_or(DEFAULT_LIFE)
            .min(Duration::from_secs(24 * 3600));
        Ok(Token {
            value,
            expires_at: Instant::now() + life.saturating_sub(RENEW_BEFORE).max(life / 2),
        })
    }

    fn place(&self, registry: &Place) -> Place {
        let host = self.realm.host_str().unwrap_or_default();
        Place::new(host, format!("a token for {}", registry.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_realm_must_not_weaken_the_connection() {
        let place = Place::new("ghcr.io", "x");
        let accepts = |realm: &str, plain| TokenServer::new(&place, realm, None, plain).is_ok();
        assert!(accepts("https://auth.example/token", false));
        assert!(accepts("http://auth.example/token", true));
        for refused in [
            "http://auth.example/token",
            "http://127.0.0.1:5001/auth",
            "ftp://auth.example/",
            "token",
            "https://user:pw@auth.example/",
        ] {
            assert!(!accepts(refused, false), "{refused}");
        }
    }
}
