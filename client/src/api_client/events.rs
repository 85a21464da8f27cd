//! A build's events, read across broken connections.

use bytes::BytesMut;
use http::Method;
use reqwest::{Response, StatusCode};

use super::Api;
use crate::api::{BuildState, NumberedEvent};
use crate::error::Error;
use crate::registry::STALL_TIMEOUT;
use crate::retry;

/// The longest line: an event holds at most a line of output and a Dockerfile's steps.
const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Reads events one by one, each once, in order.
pub struct Events {
    api: Api,
    build: String,
    /// The number of the last event given out.
    after: u64,
    body: Option<Response>,
    buffer: BytesMut,
    /// Breaks in a row without an event between them.
    failures: u32,
}

impl Events {
    pub(super) fn new(api: Api, build: &str, after: u64) -> Self {
        Self {
            api,
            build: build.to_owned(),
            after,
            body: None,
            buffer: BytesMut::new(),
            failures: 0,
        }
    }

    /// The next event; `None` when the build has ended and all were given.
    pub async fn next(&mut self) -> Result<Option<NumberedEvent>, Error> {
        loop {
            if let Some(line) = self.take_line()? {
                let event: NumberedEvent =
                    serde_json::from_slice(&line).map_err(|error| self.protocol(error.to_string()))?;
                if event.seq <= self.after {
                    continue;
                }
                self.after = event.seq;
                self.failures = 0;
                return Ok(Some(event));
            }
            match self.read().await {
                Ok(true) => {}
                // A clean end may also be a server that stops: the build itself knows.
                Ok(false) => {
                    let status = self.api.build(&self.build).await?;
                    if status.state == BuildState::Finished && self.after >= status.last_seq {
                        return Ok(None);
                    }
                    self.pause(None).await?;
                }
                Err(error) if error.is_outage() => self.pause(Some(error)).await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads a piece into the buffer. False at the stream's end.
    async fn read(&mut self) -> Result<bool, Error> {
        let place = self.api.transport.place(self.what());
        let body = match &mut self.body {
            Some(body) => body,
            None => {
                let path = format!("/api/v1/builds/{}/events", self.build);
                let mut call = self.api.call(Method::GET, &path, self.what());
                call.url.set_query(Some(&format!("after={}", self.after)));
                self.buffer.clear();
                let answer = self.api.transport.expect(call, &[StatusCode::OK]).await?;
                self.body.insert(answer)
            }
        };
        let piece = tokio::time::timeout(STALL_TIMEOUT, body.chunk())
            .await
            .map_err(|_| Error::TimedOut {
                place: place.clone(),
                seconds: STALL_TIMEOUT.as_secs(),
            })?
            .map_err(|source| Error::unreachable(place, source))?;
        match piece {
            Some(piece) => {
                self.buffer.extend_from_slice(&piece);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// The next whole line that is not empty; empty ones keep the connection alive.
    fn take_line(&mut self) -> Result<Option<BytesMut>, Error> {
        while let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
            let line = self.buffer.split_to(end + 1);
            if !line.trim_ascii().is_empty() {
                return Ok(Some(line));
            }
        }
        if self.buffer.len() > LINE_BYTES_MAX {
            return Err(self.protocol(format!("a line of more than {LINE_BYTES_MAX} bytes")));
        }
        Ok(None)
    }

    async fn pause(&mut self, error: Option<Error>) -> Result<(), Error> {
        self.body = None;
        self.buffer.clear();
        self.failures += 1;
        match (retry::pause(self.failures, None), error) {
            (Some(pause), _) => {
                tokio::time::sleep(pause).await;
                Ok(())
            }
            (None, Some(error)) => Err(error),
            (None, None) => Err(self.protocol("its events end before the build does".to_owned())),
        }
    }

    fn what(&self) -> String {
        format!("events of build {}", self.build)
    }

    fn protocol(&self, detail: String) -> Error {
        Error::Protocol {
            place: self.api.transport.place(self.what()),
            detail,
        }
    }
}
