//! `/v2/<name>/blobs/uploads/` and the sessions below it.

use std::sync::Arc;

use axum::body::Body;
use futures::{StreamExt as _, TryStreamExt as _};
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use oci::{Algorithm, Digest, RepoName};

use super::app::{Answer, Call};
use super::blobs::{CONTENT_DIGEST, insert};
use super::notices::Told;
use super::page::Query;
use super::range::chunk;
use super::slots::UploadSlot;
use super::{ApiError, Code};
use crate::service::webhooks::notice;
use crate::service::{Action, BodyError, BodyStream, Registry, RegistryError, Session, drain};
use crate::storage::UploadId;

/// The specification's name for the smallest chunk that is welcome before the last.
const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");
const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// Opens a session, stores a blob that comes with the request, or mounts one.
pub(super) async fn start(call: Call<'_>, name: RepoName) -> Answer {
    call.principal.require(Action::Push, &name)?;
    let registry = &call.state.registry;
    let query = Query::of(call.request.uri());
    let actor = call.principal.actor();
    if let Some(digest) = query.get("mount") {
        let digest: Digest = digest.parse()?;
        // A source that can't be read as a name has nothing to mount.
        let source: Option<Option<RepoName>> = query.get("from").map(|from| from.parse().ok());
        let mounted = match source {
            Some(None) => false,
            Some(Some(source)) => {
                registry
                    .mount(&call.principal, &name, Some(&source), &digest)
                    .await?
            }
            None => registry.mount(&call.principal, &name, None, &digest).await?,
        };
        if mounted {
            if let Some(told) = Told::of_blob(&call, notice::Action::Mount) {
                let from = query.get("from").and_then(|from| from.parse().ok());
                told.blob(&name, &digest, size(registry, &name, &digest).await, from);
            }
            return Ok(created(&name, &digest));
        }
    } else if let Some(digest) = query.get("digest") {
        let digest: Digest = digest.parse()?;
        let chunk = chunk(call.request.headers())?;
        let told = Told::of_blob(&call, notice::Action::Push);
        let (body, _slot) = admitted(call).await?;
        registry.push_blob(&name, &actor, digest, chunk, body).await?;
        if let Some(told) = told {
            told.blob(&name, &digest, size(registry, &name, &digest).await, None);
        }
        return Ok(created(&name, &digest));
    }
    let algorithm = match query.get("digest-algorithm") {
        Some(text) => text.parse()?,
        None => Algorithm::default(),
    };
    let id = registry.start_upload(&name, &actor, algorithm).await?;
    let mut response = standing(StatusCode::ACCEPTED, &name, id, 0);
    if let Some(bytes) = registry.chunk_bytes_min() {
        response
            .headers_mut()
            .insert(CHUNK_MIN_LENGTH, HeaderValue::from(bytes));
    }
    Ok(response)
}

pub(super) async fn status(call: Call<'_>, name: RepoName, id: UploadId) -> Answer {
    call.principal.require(Action::Push, &name)?;
    let session = Session { id, repository: name };
    let offset = call.state.registry.upload_offset(&session).await?;
    Ok(standing(StatusCode::NO_CONTENT, &session.repository, id, offset))
}

pub(super) async fn append(call: Call<'_>, name: RepoName, id: UploadId) -> Answer {
    call.principal.require(Action::Push, &name)?;
    let chunk = chunk(call.request.headers())?;
    let session = Session {
        id,
        repository: name.clone(),
    };
    let registry = &call.state.registry;
    let (body, _slot) = admitted(call).await?;
    let appended = registry.append(session, chunk, body).await;
    let offset = appended.map_err(|error| explain(error, &name))?;
    Ok(standing(StatusCode::ACCEPTED, &name, id, offset))
}

pub(super) async fn finish(call: Call<'_>, name: RepoName, id: UploadId) -> Answer {
    call.principal.require(Action::Push, &name)?;
    let query = Query::of(call.request.uri());
    let digest: Digest = query
        .get("digest")
        .ok_or_else(|| {
            ApiError::new(
                Code::DigestInvalid,
                "closing an upload needs the parameter digest",
            )
        })?
        .parse()?;
    let chunk = chunk(call.request.headers())?;
    let session = Session {
        id,
        repository: name.clone(),
    };
    let registry = &call.state.registry;
    let told = Told::of_blob(&call, notice::Action::Push);
    let (body, _slot) = admitted(call).await?;
    let finished = registry.finish(session, digest, chunk, body).await;
    finished.map_err(|error| explain(error, &name))?;
    if let Some(told) = told {
        told.blob(&name, &digest, size(registry, &name, &digest).await, None);
    }
    Ok(created(&name, &digest))
}

pub(super) async fn cancel(call: Call<'_>, name: RepoName, id: UploadId) -> Answer {
    call.principal.require(Action::Push, &name)?;
    call.state
        .registry
        .cancel_upload(Session { id, repository: name })
        .await?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// A request's bytes, with its place among the uploads that may run at once. The body has it too: it is read on when
/// its request is gone.
async fn admitted(call: Call<'_>) -> Result<(BodyStream, Option<Arc<UploadSlot>>), ApiError> {
    let body = call
        .request
        .into_body()
        .into_data_stream()
        .map_err(BodyError::from);
    // The server's own builds are counted where they are started.
    if call.socket {
        return Ok((Box::pin(body), None));
    }
    match call.state.uploads.take(&call.principal, call.address) {
        Ok(slot) => {
            let slot = Arc::new(slot);
            let held = Arc::clone(&slot);
            let body = body.inspect(move |_| {
                let _until_the_body_is_dropped = &held;
            });
            Ok((Box::pin(body), Some(slot)))
        }
        Err(full) => {
            drain(Box::pin(body)).await;
            Err(full.into())
        }
    }
}

/// Of a blob that was there a moment ago.
async fn size(registry: &Registry, name: &RepoName, digest: &Digest) -> Option<u64> {
    registry.blob(name, digest).await.ok().map(|blob| blob.size)
}

/// A refused chunk says where to go on.
fn explain(error: RegistryError, name: &RepoName) -> ApiError {
    let standing = match &error {
        RegistryError::UploadOffset { upload, offset } => Some((*upload, *offset)),
        _ => None,
    };
    let api = ApiError::from(error);
    match standing {
        Some((id, offset)) => api
            .with_header(header::LOCATION, location(name, id))
            .with_header(header::RANGE, inclusive(offset)),
        None => api,
    }
}

/// Where a session stands.
fn standing(status: StatusCode, name: &RepoName, id: UploadId, offset: u64) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    insert(headers, header::LOCATION, &location(name, id));
    insert(headers, header::RANGE, &inclusive(offset));
    insert(headers, UPLOAD_UUID, &id.to_string());
    if status != StatusCode::NO_CONTENT {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    response
}

fn created(name: &RepoName, digest: &Digest) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::CREATED;
    insert(
        response.headers_mut(),
        header::LOCATION,
        &format!("/v2/{name}/blobs/{digest}"),
    );
    insert(response.headers_mut(), CONTENT_DIGEST, &digest.to_string());
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    response
}

/// Relative, so that it holds behind any proxy.
fn location(name: &RepoName, id: UploadId) -> String {
    format!("/v2/{name}/blobs/uploads/{id}")
}

/// What the session has, both ends included; an empty one can only say `0-0`.
fn inclusive(offset: u64) -> String {
    format!("0-{}", offset.saturating_sub(1))
}
