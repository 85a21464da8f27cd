//! `/api/v1` of a Layeryard server, typed: what the command line and the worker ask for.

mod accounts;
mod collection;
mod events;
mod user;
mod verify;
mod worker;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::auth::Scopes;
use crate::endpoint::{Access, Options};
use crate::error::{Error, Place};
use crate::registry::read_limited;
use crate::transport::{ANSWER_TIMEOUT, Call, Payload, Transport};
pub use events::Events;

/// The longest JSON answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A Layeryard server. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    transport: Arc<Transport>,
}

impl Api {
    /// The server at an address such as `http://localhost:5000` or `registry.lan:5000`.
    pub fn new(server: &str, options: Options) -> Result<Self, Error> {
        Ok(Self {
            transport: Arc::new(Transport::new(server, options)?),
        })
    }

    /// The server behind its unix socket.
    pub fn unix(socket: &Path, token: &str) -> Result<Self, Error> {
        Ok(Self {
            transport: Arc::new(Transport::unix(socket, Access::Bearer(token.to_owned()))?),
        })
    }

    /// The server's address as it was given.
    pub fn host(&self) -> &str {
        self.transport.host()
    }

    fn call(&self, method: Method, path: &str, what: impl Into<String>) -> Call {
        self.transport.call(method, path, Scopes::default(), what)
    }

    /// Sends JSON and reads JSON.
    async fn exchange<T: DeserializeOwned>(
        &self,
        mut call: Call,
        body: Option<&impl Serialize>,
        expected: &[StatusCode],
    ) -> Result<T, Error> {
        let place = self.transport.place(call.what.clone());
        if let Some(body) = body {
            with_json(&mut call, &place, body)?;
        }
        let answer = self.transport.expect(call, expected).await?;
        read_json(&place, answer).await
    }

    /// Sends JSON to which the answer is just yes.
    async fn tell(
        &self,
        mut call: Call,
        body: Option<&impl Serialize>,
        expected: &[StatusCode],
    ) -> Result<(), Error> {
        let place = self.transport.place(call.what.clone());
        if let Some(body) = body {
            with_json(&mut call, &place, body)?;
        }
        self.transport.expect(call, expected).await?;
        Ok(())
    }
}

/// The time an answer may take that the server holds back for `wait_seconds` itself.
fn long_poll(wait_seconds: u64) -> Duration {
    ANSWER_TIMEOUT + Duration::from_secs(wait_seconds)
}

fn with_json(call: &mut Call, place: &Place, body: &impl Serialize) -> Result<(), Error> {
    let bytes = serde_json::to_vec(body).map_err(|error| Error::Protocol {
        place: place.clone(),
        detail: error.to_string(),
    })?;
    call.headers
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    call.body = Payload::Bytes(bytes.into());
    Ok(())
}

async fn read_json<T: DeserializeOwned>(place: &Place, answer: Response) -> Result<T, Error> {
    let body = read_limited(place, answer, ANSWER_BYTES_MAX).await?;
    serde_json::from_slice(&body).map_err(|error| Error::Protocol {
        place: place.clone(),
        detail: error.to_string(),
    })
}
