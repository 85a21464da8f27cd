//! Pushing blobs of known digest: one request where nothing goes wrong, taken up where it broke otherwise.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderValue, Method};
use oci::{Digest, RepoName};
use parking_lot::Mutex;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use url::Url;

use super::Registry;
use super::blobs::{ByteStream, blob_name};
use super::upload::{Begun, OCTET_STREAM, with_digest};
use crate::error::{Error, Place};
use crate::retry;
use crate::transport::Payload;

/// How much is read from a file at once.
const FILE_PIECE_BYTES: usize = 256 * 1024;

/// Something that can be sent, again from the middle if need be.
#[async_trait]
pub trait BlobSource: Send + Sync {
    async fn open(&self, offset: u64) -> Result<ByteStream, Error>;
}

/// A blob in memory.
pub struct BytesSource(pub Bytes);

/// A blob that is a part of a file: `length` bytes from `start`.
pub struct FileSource {
    pub path: PathBuf,
    pub start: u64,
    pub length: u64,
}

impl Registry {
    /// Uploads a blob. A registry that holds it already may be asked first with [`Registry::stat_blob`].
    pub async fn push_blob(
        &self,
        repository: &RepoName,
        digest: &Digest,
        size: u64,
        source: &dyn BlobSource,
    ) -> Result<(), Error> {
        self.push_or_mount(repository, digest, size, source, None)
            .await
            .map(|_| ())
    }

    /// Mounts a blob from `from`, or uploads it if the registry cannot mount. Returns whether it was mounted.
    pub async fn push_or_mount(
        &self,
        repository: &RepoName,
        digest: &Digest,
        size: u64,
        source: &dyn BlobSource,
        from: Option<&RepoName>,
    ) -> Result<bool, Error> {
        let mut session = match self
            .begin_upload(repository, from.map(|from| (digest, from)))
            .await?
        {
            Begun::Mounted => return Ok(true),
            Begun::Session(session) => session,
        };
        let mut offset = 0;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let sent = self
                .send_from(repository, digest, size, source, session.clone(), offset)
                .await;
            let error = match sent {
                Ok(()) => return Ok(false),
                Err(error) => error,
            };
            let Some(pause) = retry::pause(attempt, None).filter(|_| error.is_outage()) else {
                self.cancel_upload(repository, session).await;
                return Err(error);
            };
            tracing::debug!(%error, %digest, attempt, "an upload broke, going on");
            tokio::time::sleep(pause).await;
            (offset, session) = self.resume(repository, digest, session).await?;
            if offset > size {
                offset = 0;
            }
        }
    }

    /// Where a broken upload goes on; a new session if the old one is gone.
    async fn resume(
        &self,
        repository: &RepoName,
        digest: &Digest,
        session: Url,
    ) -> Result<(u64, Url), Error> {
        if let Some(known) = self.upload_offset(repository, &session).await? {
            return Ok(known);
        }
        match self.begin_upload(repository, None).await? {
            Begun::Session(session) => Ok((0, session)),
            Begun::Mounted => Err(Error::Protocol {
                place: self.transport.place(blob_name(repository, digest)),
                detail: "it answers 201 to an upload of nothing".to_owned(),
            }),
        }
    }

    /// Sends the rest of a blob: whole blobs in the closing PUT itself, rests as a chunk before it.
    async fn send_from(
        &self,
        repository: &RepoName,
        digest: &Digest,
        size: u64,
        source: &dyn BlobSource,
        session: Url,
        offset: u64,
    ) -> Result<(), Error> {
        if offset == size && size > 0 {
            return self.finish_upload(repository, session, digest).await;
        }
        let place = self.transport.place(blob_name(repository, digest));
        let rest = source.open(offset).await?;
        let (body, failure) = watched(rest);
        let whole = offset == 0;
        let mut call = match whole {
            true => self.session_call(Method::PUT, repository, with_digest(session.clone(), digest)),
            false => self.session_call(Method::PATCH, repository, session.clone()),
        };
        call.what.clone_from(&place.what);
        call.timeout = None;
        call.headers.insert(CONTENT_TYPE, OCTET_STREAM);
        call.headers
            .insert(CONTENT_LENGTH, HeaderValue::from(size - offset));
        if !whole {
            let range = HeaderValue::try_from(format!("{offset}-{}", size - 1));
            call.headers
                .extend(range.ok().map(|range| (CONTENT_RANGE, range)));
        }
        call.body = Payload::Stream(body);
        let expected = [StatusCode::CREATED, StatusCode::ACCEPTED, StatusCode::NO_CONTENT];
        let answer = self.transport.expect(call, &expected).await;
        // What the source said outweighs what the connection made of it.
        if let Some(error) = failure.lock().take() {
            return Err(error);
        }
        let answer = answer?;
        if answer.status() == StatusCode::CREATED {
            return Ok(());
        }
        let next = self.next_session(&place, &session, &answer)?;
        self.finish_upload(repository, next, digest).await
    }
}

/// A stream as a request's body that puts its error aside before the connection breaks over it.
pub(crate) fn watched(stream: ByteStream) -> (reqwest::Body, Arc<Mutex<Option<Error>>>) {
    let failure = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&failure);
    let stream = stream.map(move |piece| {
        piece.map_err(|error| {
            let text = error.to_string();
            *slot.lock() = Some(error);
            std::io::Error::other(text)
        })
    });
    (reqwest::Body::wrap_stream(stream), failure)
}

#[async_trait]
impl BlobSource for BytesSource {
    async fn open(&self, offset: u64) -> Result<ByteStream, Error> {
        let from = usize::try_from(offset).map_or(self.0.len(), |from| from.min(self.0.len()));
        let rest = self.0.slice(from..);
        Ok(Box::pin(futures::stream::iter([Ok(rest)])))
    }
}

#[async_trait]
impl BlobSource for FileSource {
    async fn open(&self, offset: u64) -> Result<ByteStream, Error> {
        let place = Place::new("this machine", self.path.display().to_string());
        let failed = |source| Error::Source {
            place: place.clone(),
            source,
        };
        let mut file = tokio::fs::File::open(&self.path).await.map_err(failed)?;
        let from = std::io::SeekFrom::Start(self.start + offset);
        file.seek(from).await.map_err(failed)?;
        let part = file.take(self.length.saturating_sub(offset));
        let pieces = tokio_util::io::ReaderStream::with_capacity(part, FILE_PIECE_BYTES);
        Ok(Box::pin(pieces.map(move |piece| {
            piece.map_err(|source| Error::Source {
                place: place.clone(),
                source,
            })
        })))
    }
}
