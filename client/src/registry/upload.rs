//! Upload sessions, and blobs whose digest is known only at their end.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderValue, Method};
use oci::{Digest, RepoName};
use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION, RANGE};
use reqwest::{Response, StatusCode};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use url::Url;

use super::Registry;
use super::blobs::blob_name;
use crate::auth::Scopes;
use crate::error::{Error, Place};
use crate::transport::{Call, Payload};

/// How long a registry may take to store a complete upload: some hash everything again or copy it elsewhere.
const FINISH_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// Pieces on their way to the connection.
const PIECES_IN_FLIGHT: usize = 4;
pub(super) const OCTET_STREAM: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// How an upload request was answered.
pub(super) enum Begun {
    /// The blob is there, mounted from elsewhere.
    Mounted,
    /// An upload session.
    Session(Url),
}

/// A blob on its way, streamed in one request. Dropping it gives the upload up.
pub struct Upload {
    registry: Registry,
    repository: RepoName,
    session: Url,
    pieces: Option<mpsc::Sender<Bytes>>,
    /// The request that carries the pieces; gives the session's next URL.
    sending: Option<JoinHandle<Result<Url, Error>>>,
}

impl Registry {
    /// Makes a blob of `from` available in `repository` without moving bytes. False: the registry wants it uploaded.
    pub async fn mount_blob(
        &self,
        repository: &RepoName,
        digest: &Digest,
        from: &RepoName,
    ) -> Result<bool, Error> {
        match self.begin_upload(repository, Some((digest, from))).await? {
            Begun::Mounted => Ok(true),
            Begun::Session(session) => {
                self.cancel_upload(repository, session).await;
                Ok(false)
            }
        }
    }

    /// Begins a blob whose digest is known only at its end.
    pub async fn start_upload(&self, repository: &RepoName) -> Result<Upload, Error> {
        let session = match self.begin_upload(repository, None).await? {
            Begun::Session(session) => session,
            Begun::Mounted => {
                return Err(Error::Protocol {
                    place: self.transport.place(format!("an upload to {repository}")),
                    detail: "it answers 201 to an upload of nothing".to_owned(),
                });
            }
        };
        let (pieces, receiver) = mpsc::channel::<Bytes>(PIECES_IN_FLIGHT);
        let stream = tokio_stream(receiver);
        let mut call = self.session_call(Method::PATCH, repository, session.clone());
        call.headers.insert(CONTENT_TYPE, OCTET_STREAM);
        call.body = Payload::Stream(reqwest::Body::wrap_stream(stream));
        call.timeout = None;
        let registry = self.clone();
        let sending = tokio::spawn(async move {
            let (from, place) = (call.url.clone(), registry.transport.place(call.what.clone()));
            let expected = [StatusCode::ACCEPTED, StatusCode::NO_CONTENT, StatusCode::CREATED];
            let answer = registry.transport.expect(call, &expected).await?;
            registry.next_session(&place, &from, &answer)
        });
        Ok(Upload {
            registry: self.clone(),
            repository: repository.clone(),
            session,
            pieces: Some(pieces),
            sending: Some(sending),
        })
    }

    pub(super) async fn begin_upload(
        &self,
        repository: &RepoName,
        mount: Option<(&Digest, &RepoName)>,
    ) -> Result<Begun, Error> {
        let path = format!("/v2/{repository}/blobs/uploads/");
        let mut scopes = Scopes::push(repository);
        let mut what = format!("an upload to {repository}");
        if let Some((digest, from)) = mount {
            scopes = scopes.and(Scopes::pull(from));
            what = blob_name(repository, digest);
        }
        let mut call = self.transport.call(Method::POST, &path, scopes, what);
        if let Some((digest, from)) = mount {
            call.url
                .query_pairs_mut()
                .append_pair("mount", &digest.to_string())
                .append_pair("from", from.as_str());
        }
        let (from, place) = (call.url.clone(), self.transport.place(call.what.clone()));
        let expected = [StatusCode::ACCEPTED, StatusCode::CREATED];
        let answer = self.transport.expect(call, &expected).await?;
        if answer.status() == StatusCode::CREATED && mount.is_some() {
            return Ok(Begun::Mounted);
        }
        if !answer.headers().contains_key(LOCATION) {
            return Err(Error::Protocol {
                place,
                detail: "an upload session without Location".to_owned(),
            });
        }
        self.next_session(&place, &from, &answer).map(Begun::Session)
    }

    /// Ends a session whose bytes are all there.
    pub(super) async fn finish_upload(
        &self,
        repository: &RepoName,
        session: Url,
        digest: &Digest,
    ) -> Result<(), Error> {
        let mut call = self.session_call(Method::PUT, repository, with_digest(session, digest));
        call.what = blob_name(repository, digest);
        call.timeout = Some(FINISH_TIMEOUT);
        let place = self.transport.place(call.what.clone());
        match self.transport.expect(call, &[StatusCode::CREATED]).await {
            Ok(_) => Ok(()),
            // A repeated PUT finds its session gone when the first one's answer was lost: the blob then tells.
            Err(Error::NotFound { message, .. }) => match self.stat_blob(repository, digest).await? {
                Some(_) => Ok(()),
                None => Err(Error::NotFound { place, message }),
            },
            Err(error) => Err(error),
        }
    }

    /// How many bytes a session holds, with the URL to go on at; `None` if it is gone.
    pub(super) async fn upload_offset(
        &self,
        repository: &RepoName,
        session: &Url,
    ) -> Result<Option<(u64, Url)>, Error> {
        let call = self.session_call(Method::GET, repository, session.clone());
        let place = self.transport.place(call.what.clone());
        let answer = self.transport.send(call).await?;
        match answer.status() {
            StatusCode::NO_CONTENT | StatusCode::OK | StatusCode::ACCEPTED => {
                let next = self.next_session(&place, session, &answer)?;
                Ok(Some((held_bytes(answer.headers()), next)))
            }
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(Error::from_answer(place, answer).await),
        }
    }

    pub(super) async fn cancel_upload(&self, repository: &RepoName, session: Url) {
        let call = self.session_call(Method::DELETE, repository, session);
        // The registry drops idle sessions by itself.
        if let Err(error) = self.transport.send(call).await {
            tracing::debug!(%error, "an abandoned upload was not cancelled");
        }
    }

    pub(super) fn session_call(&self, method: Method, repository: &RepoName, session: Url) -> Call {
        let what = format!("an upload to {repository}");
        let mut call = self.transport.call(method, "/", Scopes::push(repository), what);
        call.url = session;
        call
    }

    /// Where an upload goes on: `Location`, or the same place if there is none.
    pub(super) fn next_session(&self, place: &Place, from: &Url, answer: &Response) -> Result<Url, Error> {
        match answer.headers().get(LOCATION) {
            None => Ok(from.clone()),
            Some(location) => {
                let location = location.to_str().map_err(|_| Error::Protocol {
                    place: place.clone(),
                    detail: "Location is no text".to_owned(),
                })?;
                self.transport.target(from, location, &place.what)
            }
        }
    }
}

impl Upload {
    /// Sends a piece; waits while the connection is slower.
    pub async fn write(&mut self, piece: Bytes) -> Result<(), Error> {
        if piece.is_empty() {
            return Ok(());
        }
        if let Some(pieces) = &self.pieces
            && pieces.send(piece).await.is_ok()
        {
            return Ok(());
        }
        // The request has ended before its body: its answer says why.
        self.pieces = None;
        let place = self.place();
        let detail = "it answered before the whole blob was sent".to_owned();
        self.answer().await?;
        Err(Error::Protocol { place, detail })
    }

    /// Returns when the registry has stored the blob under `digest`, which it verifies.
    pub async fn finish(mut self, digest: &Digest) -> Result<(), Error> {
        self.pieces = None;
        let session = self.answer().await?;
        self.registry
            .finish_upload(&self.repository, session, digest)
            .await
    }

    async fn answer(&mut self) -> Result<Url, Error> {
        let Some(sending) = self.sending.take() else {
            return Err(Error::Protocol {
                place: self.place(),
                detail: "the upload has failed before".to_owned(),
            });
        };
        match sending.await {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    fn place(&self) -> Place {
        let what = format!("an upload to {}", self.repository);
        self.registry.transport.place(what)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(sending) = self.sending.take() else {
            return;
        };
        sending.abort();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (registry, repository) = (self.registry.clone(), self.repository.clone());
            let session = self.session.clone();
            runtime.spawn(async move { registry.cancel_upload(&repository, session).await });
        }
    }
}

/// The session's URL with the digest added; the registry's own query stays.
pub(super) fn with_digest(mut session: Url, digest: &Digest) -> Url {
    session
        .query_pairs_mut()
        .append_pair("digest", &digest.to_string());
    session
}

fn tokio_stream(
    receiver: mpsc::Receiver<Bytes>,
) -> impl futures::Stream<Item = Result<Bytes, std::convert::Infallible>> {
    futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (piece, receiver))
    })
    .map(Ok)
}

/// `Range: 0-N` with N the last byte held. `0-0` is what an empty session says too, so one byte counts as none.
fn held_bytes(headers: &HeaderMap) -> u64 {
    let last = headers.get(RANGE).and_then(|value| {
        let text = value.to_str().ok()?;
        let (_, last) = text.trim_start_matches("bytes=").split_once('-')?;
        last.trim().parse::<u64>().ok()
    });
    match last {
        None | Some(0) => 0,
        Some(last) => last + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sessions_range_is_inclusive() {
        for (text, bytes) in [
            ("0-0", 0),
            ("0-9", 10),
            ("bytes=0-9", 10),
            ("x", 0),
            ("5", 0),
            ("0--1", 0),
        ] {
            let headers = HeaderMap::from_iter([(RANGE, HeaderValue::from_static(text))]);
            assert_eq!(held_bytes(&headers), bytes, "{text}");
        }
    }

    #[test]
    fn the_registrys_query_survives() {
        let session = "http://r/v2/a/blobs/uploads/1?_state=x%2Fy".parse().unwrap();
        let url = with_digest(session, &Digest::sha256(b""));
        assert!(
            url.as_str().contains("?_state=x%2Fy&digest=sha256%3Ae3b0"),
            "{url}"
        );
    }
}
