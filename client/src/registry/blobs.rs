//! Reading blobs: from any offset, again where a connection broke, verified.

use std::pin::Pin;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use http::{HeaderValue, Method};
use oci::{Descriptor, Digest, Hasher, RepoName};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, RANGE};
use reqwest::{Response, StatusCode};
use tokio::io::AsyncRead;

use super::{Registry, STALL_TIMEOUT};
use crate::auth::Scopes;
use crate::error::{Error, Place};
use crate::retry;

/// A body in pieces.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// A stream as a reader; errors keep their text.
pub fn into_reader(stream: ByteStream) -> Pin<Box<dyn AsyncRead + Send>> {
    Box::pin(tokio_util::io::StreamReader::new(
        stream.map_err(std::io::Error::other),
    ))
}

impl Registry {
    /// The size of a blob, or `None` if the repository has none of this digest.
    pub async fn stat_blob(&self, repository: &RepoName, digest: &Digest) -> Result<Option<u64>, Error> {
        let call = self.transport.call(
            Method::HEAD,
            &Self::blob_path(repository, digest),
            Scopes::pull(repository),
            blob_name(repository, digest),
        );
        let place = self.transport.place(call.what.clone());
        let answer = self.transport.send(call).await?;
        match answer.status() {
            StatusCode::OK => {
                let size = header_number(answer.headers(), &CONTENT_LENGTH);
                size.map(Some).ok_or(Error::Protocol {
                    place,
                    detail: "HEAD of a blob has no Content-Length".to_owned(),
                })
            }
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(Error::from_answer(place, answer).await),
        }
    }

    /// Opens a blob from its beginning. The stream ends with an error if the size or the digest of the whole is wrong.
    pub async fn open_blob(
        &self,
        repository: &RepoName,
        descriptor: &Descriptor,
    ) -> Result<ByteStream, Error> {
        let stream = self.open_blob_at(repository, descriptor, 0).await?;
        let place = self.transport.place(blob_name(repository, &descriptor.digest));
        Ok(verified(place, descriptor.digest, stream))
    }

    /// Opens a blob from `offset`; the caller verifies the digest. A connection that breaks is taken up again.
    pub async fn open_blob_at(
        &self,
        repository: &RepoName,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<ByteStream, Error> {
        let mut read = Reading {
            registry: self.clone(),
            repository: repository.clone(),
            digest: descriptor.digest,
            size: descriptor.size,
            offset,
            body: None,
            skip: 0,
            failures: 0,
        };
        // The first answer comes here, so that a missing blob is an error of the call, not of the stream.
        if offset < descriptor.size || descriptor.size == 0 {
            read.body = Some(read.request().await?);
        }
        Ok(Box::pin(futures::stream::try_unfold(read, |mut read| async {
            Ok(read.next().await?.map(|chunk| (chunk, read)))
        })))
    }

    /// Reads a small blob whole, verified.
    pub async fn read_blob(
        &self,
        repository: &RepoName,
        descriptor: &Descriptor,
        limit_bytes: u64,
    ) -> Result<Bytes, Error> {
        if descriptor.size > limit_bytes {
            return Err(Error::TooLarge {
                place: self.transport.place(blob_name(repository, &descriptor.digest)),
                limit_bytes,
            });
        }
        let stream = self.open_blob(repository, descriptor).await?;
        let pieces: Vec<Bytes> = stream.try_collect().await?;
        Ok(pieces.concat().into())
    }

    pub async fn delete_blob(&self, repository: &RepoName, digest: &Digest) -> Result<(), Error> {
        let call = self.transport.call(
            Method::DELETE,
            &Self::blob_path(repository, digest),
            Scopes::delete(repository),
            blob_name(repository, digest),
        );
        self.transport
            .expect(
                call,
                &[StatusCode::ACCEPTED, StatusCode::OK, StatusCode::NO_CONTENT],
            )
            .await?;
        Ok(())
    }
}

pub(super) fn blob_name(repository: &RepoName, digest: &Digest) -> String {
    format!("blob {repository}@{digest}")
}

/// A blob being read.
struct Reading {
    registry: Registry,
    repository: RepoName,
    digest: Digest,
    size: u64,
    offset: u64,
    body: Option<Response>,
    /// What of the body is here already, from a registry that knows no ranges.
    skip: u64,
    /// Breaks in a row without a byte between them.
    failures: u32,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if self.offset == self.size {
                return Ok(None);
            }
            let body = match &mut self.body {
                Some(body) => body,
                None => {
                    let answer = self.request().await?;
                    self.body.insert(answer)
                }
            };
            let broken = match tokio::time::timeout(STALL_TIMEOUT, body.chunk()).await {
                Ok(Ok(Some(mut chunk))) => {
                    let known = self.skip.min(chunk.len() as u64);
                    self.skip -= known;
                    let chunk = chunk.split_off(known as usize);
                    if chunk.is_empty() {
                        continue;
                    }
                    self.failures = 0;
                    self.offset += chunk.len() as u64;
                    if self.offset > self.size {
                        return Err(self.wrong_size());
                    }
                    return Ok(Some(chunk));
                }
                Ok(Ok(None)) => self.wrong_size(),
                Ok(Err(source)) => Error::unreachable(self.place(), source),
                Err(_) => Error::TimedOut {
                    place: self.place(),
                    seconds: STALL_TIMEOUT.as_secs(),
                },
            };
            self.body = None;
            self.failures += 1;
            let Some(pause) = retry::pause(self.failures, None) else {
                return Err(broken);
            };
            tracing::debug!(error = %broken, offset = self.offset, "reading on");
            tokio::time::sleep(pause).await;
        }
    }

    /// Asks for the rest of the blob.
    async fn request(&mut self) -> Result<Response, Error> {
        let mut call = self.registry.transport.call(
            Method::GET,
            &Registry::blob_path(&self.repository, self.digest),
            Scopes::pull(&self.repository),
            blob_name(&self.repository, &self.digest),
        );
        if self.offset > 0 {
            let range = HeaderValue::try_from(format!("bytes={}-", self.offset));
            call.headers.extend(range.ok().map(|range| (RANGE, range)));
        }
        let expected = [StatusCode::OK, StatusCode::PARTIAL_CONTENT];
        let answer = self.registry.transport.expect(call, &expected).await?;
        let from = match answer.status() {
            StatusCode::PARTIAL_CONTENT => range_start(answer.headers()),
            _ => Some(0),
        };
        match from {
            Some(from) if from == self.offset || from == 0 => {
                self.skip = self.offset - from;
                Ok(answer)
            }
            _ => Err(Error::Protocol {
                place: self.place(),
                detail: "it sends another range than asked for".to_owned(),
            }),
        }
    }

    fn place(&self) -> Place {
        let name = blob_name(&self.repository, &self.digest);
        self.registry.transport.place(name)
    }

    fn wrong_size(&self) -> Error {
        Error::SizeMismatch {
            place: self.place(),
            expected: self.size,
            actual: self.offset,
        }
    }
}

/// Passes a stream on while hashing it; the end fails if the digest is wrong. A piece is what a connection's buffer
/// holds, so hashing one on the executor's thread holds nothing up.
fn verified(place: Place, expected: Digest, stream: ByteStream) -> ByteStream {
    struct State {
        place: Place,
        stream: ByteStream,
        hasher: Hasher,
    }
    let state = State {
        place,
        stream,
        hasher: Hasher::new(expected.algorithm()),
    };
    Box::pin(futures::stream::try_unfold(state, move |mut state| async move {
        match state.stream.next().await.transpose()? {
            Some(chunk) => {
                state.hasher.update(&chunk);
                Ok(Some((chunk, state)))
            }
            None => {
                let actual = state.hasher.finish();
                if actual == expected {
                    return Ok(None);
                }
                Err(Error::DigestMismatch {
                    place: state.place,
                    expected: Box::new(expected),
                    actual: Box::new(actual),
                })
            }
        }
    }))
}

fn header_number(headers: &HeaderMap, name: &http::HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

fn range_start(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}
