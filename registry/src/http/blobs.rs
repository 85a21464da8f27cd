//! `/v2/<name>/blobs/<digest>`

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header};
use http_body::{Frame, SizeHint};
use oci::{Digest, RepoName};

use super::app::{Answer, Call};
use super::file_body::FileBody;
use super::notices::Told;
use super::range::{Wanted, wanted};
use super::{ApiError, Code};
use crate::service::webhooks::notice;
use crate::service::{Action, OpenBlob};
use crate::storage::{ByteStream, StorageError};

pub(super) const CONTENT_DIGEST: http::HeaderName = http::HeaderName::from_static("docker-content-digest");

pub(super) async fn get(call: Call<'_>, name: RepoName, digest: Digest) -> Answer {
    call.principal.require(Action::Pull, &name)?;
    let registry = &call.state.registry;
    let blob = registry.blob(&name, &digest).await?;
    let mut response = Response::new(Body::empty());
    content_headers(response.headers_mut(), &digest);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    response
        .headers_mut()
        .insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if not_modified(call.request.headers(), &digest) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    if call.request.method() == Method::GET
        && let Some(told) = Told::of_blob(&call, notice::Action::Pull)
    {
        told.blob(&name, &digest, Some(blob.size), None);
    }
    // The worker's socket leads here only. Ranges are asked again where the client is sent.
    if call.request.method() == Method::GET
        && !call.socket
        && let Some(link) = registry.blob_link(&blob).await?
    {
        *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        insert(response.headers_mut(), header::LOCATION, &link);
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        return Ok(response);
    }
    let range = match wanted(call.request.headers(), blob.size) {
        Wanted::Whole => 0..blob.size,
        Wanted::Part(range) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let text = format!("bytes {}-{}/{}", range.start, range.end - 1, blob.size);
            insert(response.headers_mut(), header::CONTENT_RANGE, &text);
            range
        }
        Wanted::Unsatisfiable => {
            return Err(
                ApiError::new(Code::Range, format!("the blob has {} bytes", blob.size))
                    .with_header(header::CONTENT_RANGE, format!("bytes */{}", blob.size)),
            );
        }
    };
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    if call.request.method() == Method::GET {
        // HTTP/2 interleaves what it sends.
        let outbox = call.outbox.filter(|_| call.request.version() <= Version::HTTP_11);
        let file = match &outbox {
            Some(_) => registry.blob_file(&blob).await?,
            None => None,
        };
        *response.body_mut() = match file.zip(outbox) {
            Some((file, outbox)) => Body::new(FileBody::new(file, outbox, range)),
            None => Body::new(BlobBody::new(registry.open_blob(&blob, range).await?)),
        };
    }
    Ok(response)
}

pub(super) async fn delete(call: Call<'_>, name: RepoName, digest: Digest) -> Answer {
    call.principal.require(Action::Delete, &name)?;
    call.state.registry.delete_blob(&name, &digest).await?;
    if let Some(told) = Told::of_blob(&call, notice::Action::Delete) {
        told.blob(&name, &digest, None, None);
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// What says which content this is.
pub(super) fn content_headers(headers: &mut HeaderMap, digest: &Digest) {
    let text = digest.to_string();
    insert(headers, header::ETAG, &format!("\"{text}\""));
    insert(headers, CONTENT_DIGEST, &text);
}

/// Whether the caller has the content already.
pub(super) fn not_modified(headers: &HeaderMap, digest: &Digest) -> bool {
    let Some(known) = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    let ours = digest.to_string();
    known.split(',').any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"') == ours
    })
}

/// Inserts a header whose value is ours and therefore valid.
pub(super) fn insert(headers: &mut HeaderMap, name: http::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// A blob's bytes as a response's body. An error in the middle cuts the connection: the client sees a short answer.
struct BlobBody {
    bytes: ByteStream,
    rest: u64,
}

impl BlobBody {
    fn new(open: OpenBlob) -> Self {
        Self {
            bytes: open.bytes,
            rest: open.range.end - open.range.start,
        }
    }
}

impl http_body::Body for BlobBody {
    type Data = Bytes;
    type Error = StorageError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StorageError>>> {
        self.bytes.as_mut().poll_next(context).map(|next| match next? {
            Ok(piece) => {
                self.rest -= piece.len() as u64;
                Some(Ok(Frame::data(piece)))
            }
            Err(error) => {
                tracing::error!(error = crate::report::chain(&error), "blob transfer cut");
                Some(Err(error))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.rest == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest)
    }
}
