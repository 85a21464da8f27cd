//! One request to one host: authorised, redirected, repeated.
//!
//! Architecture invariant: `Authorization` is sent to the origin it was made for and to no other; a redirect elsewhere
//! (object stores with presigned URLs) goes without.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use reqwest::header::{AUTHORIZATION, HeaderMap, LOCATION};
use reqwest::{Response, StatusCode};
use url::Url;

use crate::auth::{Auth, Scopes};
use crate::endpoint::{Access, Options, base_url, is_loopback};
use crate::error::{Error, Place};
use crate::http_pool::Http;
use crate::retry;

/// How many redirects one request follows.
const REDIRECTS_MAX: usize = 5;
/// How long an answer's head may take. Bodies have [`crate::registry::STALL_TIMEOUT`] instead.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) struct Transport {
    http: Http,
    base: Url,
    /// How errors call the host: as the user wrote it.
    host: String,
    auth: Auth,
}

/// A request, complete enough to be sent several times.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Payload,
    pub(crate) scopes: Scopes,
    /// The object's name for errors.
    pub(crate) what: String,
    /// How long the answer's head may take; none for bodies of unknown length.
    pub(crate) timeout: Option<Duration>,
    /// Asks again after passing troubles; else only if the connection was never made, so that nothing is done twice.
    pub(crate) patient: bool,
}

pub(crate) enum Payload {
    Empty,
    Bytes(Bytes),
    /// Can be sent once only.
    Stream(reqwest::Body),
}

impl Transport {
    pub(crate) fn new(address: &str, options: Options) -> Result<Self, Error> {
        let base = base_url(address, options.insecure)?;
        let http = options.http.unwrap_or_default();
        Ok(Self::over(http, base, address, options.access))
    }

    /// Speaks through a unix socket, where the peer is known and bears no name.
    pub(crate) fn unix(path: &Path, access: Access) -> Result<Self, Error> {
        let address = path.display().to_string();
        let base = Url::parse("http://layeryard/").map_err(|_| Error::Address(address.clone()))?;
        Ok(Self::over(Http::unix(path), base, &address, access))
    }

    fn over(http: Http, base: Url, host: &str, access: Access) -> Self {
        let plain = base.scheme() == "http" || is_loopback(&base);
        let host = host
            .trim_start_matches("https://")
            .trim_start_matches("http://")
            .trim_end_matches('/');
        Self {
            http,
            base,
            host: host.to_owned(),
            auth: Auth::new(access, plain),
        }
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn place(&self, what: impl Into<String>) -> Place {
        Place::new(self.host.clone(), what)
    }

    /// A call to `path` below the base URL.
    pub(crate) fn call(&self, method: Method, path: &str, scopes: Scopes, what: impl Into<String>) -> Call {
        let mut url = self.base.clone();
        url.set_path(path);
        Call {
            method,
            url,
            headers: HeaderMap::new(),
            body: Payload::Empty,
            scopes,
            what: what.into(),
            timeout: Some(ANSWER_TIMEOUT),
            patient: true,
        }
    }

    /// Resolves a `Location` or `Link` target, which may be relative.
    pub(crate) fn target(&self, from: &Url, location: &str, what: &str) -> Result<Url, Error> {
        from.join(location).map_err(|_| Error::Protocol {
            place: self.place(what),
            detail: format!("{location:?} is no URL"),
        })
    }

    /// Sends a call and returns its answer if the status is among `expected`.
    pub(crate) async fn expect(&self, call: Call, expected: &[StatusCode]) -> Result<Response, Error> {
        let place = self.place(call.what.clone());
        let response = self.send(call).await?;
        if expected.contains(&response.status()) {
            return Ok(response);
        }
        Err(Error::from_answer(place, response).await)
    }

    /// Sends a call, again after a 401 that tells how to authenticate and after passing troubles.
    pub(crate) async fn send(&self, mut call: Call) -> Result<Response, Error> {
        let mut attempt = 0;
        let mut asked_for_login = false;
        loop {
            attempt += 1;
            let replayable = !matches!(call.body, Payload::Stream(_));
            let outcome = self.send_once(&mut call).await;
            let pause = match &outcome {
                Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED => {
                    let place = self.place(call.what.clone());
                    if replayable
                        && !asked_for_login
                        && self.auth.learn(&place, answer.headers(), &call.scopes)?
                    {
                        asked_for_login = true;
                        continue;
                    }
                    None
                }
                Ok(answer) if call.patient && retry::is_transient(answer.status()) => {
                    retry::pause(attempt, Some(answer.headers()))
                }
                Err(error) if may_repeat(error, call.patient) => retry::pause(attempt, None),
                _ => None,
            };
            match pause.filter(|_| replayable) {
                Some(pause) => {
                    tracing::debug!(host = self.host, what = call.what, attempt, "asking again");
                    tokio::time::sleep(pause).await;
                }
                None => return outcome,
            }
        }
    }

    async fn send_once(&self, call: &mut Call) -> Result<Response, Error> {
        let place = self.place(call.what.clone());
        let mut url = call.url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.send_to(call, &url, &place).await?;
            let next = match (answer.status().is_redirection(), answer.headers().get(LOCATION)) {
                (true, Some(location)) => location.to_str().unwrap_or_default().to_owned(),
                _ => return Ok(answer),
            };
            let refuse = |reason| Error::Redirect {
                place: place.clone(),
                location: next.clone(),
                reason,
            };
            if !matches!(call.method, Method::GET | Method::HEAD) {
                return Err(refuse("only reads follow redirects"));
            }
            let target = self.target(&url, &next, &call.what)?;
            match (url.scheme(), target.scheme()) {
                (_, "https") | ("http", "http") => url = target,
                _ => return Err(refuse("it leaves https")),
            }
        }
        Err(Error::Protocol {
            place,
            detail: format!("more than {REDIRECTS_MAX} redirects"),
        })
    }

    async fn send_to(&self, call: &mut Call, url: &Url, place: &Place) -> Result<Response, Error> {
        let _admission = self.http.admit(url, place)?;
        let mut request = self
            .http
            .client(url)?
            .request(call.method.clone(), url.clone())
            .headers(call.headers.clone());
        if url.origin() == self.base.origin()
            && let Some(header) = self.auth.header(&self.http, place, &call.scopes).await?
        {
            request = request.header(AUTHORIZATION, header);
        }
        request = match std::mem::replace(&mut call.body, Payload::Empty) {
            Payload::Empty => request,
            Payload::Bytes(bytes) => {
                call.body = Payload::Bytes(bytes.clone());
                request.body(bytes)
            }
            Payload::Stream(body) => request.body(body),
        };
        let sending = request.send();
        let sent = match call.timeout {
            Some(limit) => tokio::time::timeout(limit, sending)
                .await
                .map_err(|_| Error::TimedOut {
                    place: place.clone(),
                    seconds: limit.as_secs(),
                })?,
            None => sending.await,
        };
        sent.map_err(|source| Error::unreachable(place.clone(), source))
    }
}

fn may_repeat(error: &Error, patient: bool) -> bool {
    match error {
        Error::Unreachable { source, .. } => patient || source.is_connect(),
        Error::TimedOut { .. } => patient,
        _ => false,
    }
}
