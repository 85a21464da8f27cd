//! `/v2/<name>/manifests/<reference>`

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use oci::{Reference, RepoName, Tag};

use super::app::{Answer, Call};
use super::blobs::{CONTENT_DIGEST, content_headers, insert, not_modified};
use super::notices::Told;
use super::page::Query;
use super::{ApiError, Code};
use crate::service::webhooks::notice;
use crate::service::{Action, Principal, PushManifest, RegistryError};

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

/// Tags that one PUT may set.
const TAGS_MAX: usize = 100;

pub(super) async fn get(call: Call<'_>, name: RepoName, reference: Reference) -> Answer {
    call.principal.require(Action::Pull, &name)?;
    let manifest = call.state.registry.manifest(&name, &reference).await?;
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    content_headers(headers, &manifest.digest);
    insert(headers, header::CONTENT_TYPE, &manifest.media_type);
    if not_modified(call.request.headers(), &manifest.digest) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(manifest.bytes.len()));
    if call.request.method() == Method::GET {
        call.state.registry.pulled(&name, &manifest.digest);
        if let Principal::Build(grant) = &call.principal {
            call.state
                .registry
                .hold(&grant.build, &name, &manifest.digest)
                .await?;
        }
        if let Some(told) = Told::of_manifest(&call, notice::Action::Pull) {
            told.manifest(&name, &reference, &manifest);
        }
        *response.body_mut() = Body::from(manifest.bytes.clone());
    }
    Ok(response)
}

pub(super) async fn put(call: Call<'_>, name: RepoName, reference: Reference) -> Answer {
    call.principal.require(Action::Push, &name)?;
    let registry = &call.state.registry;
    let query = Query::of(call.request.uri());
    let tags: Vec<Tag> = match &reference {
        Reference::Tag(tag) => vec![tag.clone()],
        Reference::Digest(_) => query.all("tag").map(str::parse).collect::<Result<_, _>>()?,
    };
    if tags.len() > TAGS_MAX {
        return Err(ApiError::new(
            Code::TagInvalid,
            format!("at most {TAGS_MAX} tags can be set at once"),
        ));
    }
    let named_by_digest = reference.digest().is_some();
    let push = PushManifest {
        repository: name.clone(),
        actor: call.principal.actor(),
        origin: call.request.extensions().get().cloned().unwrap_or_default(),
        content_type: content_type(call.request.headers()),
        digest: reference.digest().copied(),
        tags: tags.clone(),
        sparse: false,
        bytes: collect(call.request, registry.limits.manifest_size_bytes_max).await?,
    };
    let pushed = registry.push_manifest(push).await?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    insert(
        headers,
        header::LOCATION,
        &format!("/v2/{name}/manifests/{reference}"),
    );
    insert(headers, CONTENT_DIGEST, &pushed.digest.to_string());
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    if let Some(subject) = &pushed.subject {
        insert(headers, OCI_SUBJECT, &subject.to_string());
    }
    if named_by_digest {
        for tag in &tags {
            if let Ok(value) = HeaderValue::from_str(tag.as_str()) {
                headers.append(OCI_TAG, value);
            }
        }
    }
    Ok(response)
}

pub(super) async fn delete(call: Call<'_>, name: RepoName, reference: Reference) -> Answer {
    call.principal.require(Action::Delete, &name)?;
    call.state
        .registry
        .delete_manifest(&name, &reference, &call.principal.actor())
        .await?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// The media type without its parameters.
fn content_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(text.split(';').next().unwrap_or_default().trim().to_owned())
}

/// Takes a body of at most `limit` bytes into memory, counting what really comes.
async fn collect(request: http::Request<Body>, limit: u64) -> Result<Bytes, ApiError> {
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced: Option<u64> = announced.and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(RegistryError::ManifestTooLarge { limit }.into());
    }
    let mut body = request.into_body().into_data_stream();
    let mut bytes = BytesMut::new();
    let broken = |received, source: axum::Error| RegistryError::BodyBroken {
        received,
        source: source.into(),
    };
    while let Some(piece) = body
        .try_next()
        .await
        .map_err(|error| broken(bytes.len() as u64, error))?
    {
        if (bytes.len() + piece.len()) as u64 > limit {
            return Err(RegistryError::ManifestTooLarge { limit }.into());
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes.freeze())
}
