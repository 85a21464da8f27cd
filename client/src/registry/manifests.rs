//! Manifests: resolve, fetch, store, delete.

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method};
use oci::{Algorithm, Descriptor, Digest, Manifest, Platform, Reference, RepoName, media_type};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use reqwest::{Response, StatusCode};

use super::{Registry, STALL_TIMEOUT, manifest_name};
use crate::auth::Scopes;
use crate::error::{Error, Place};
use crate::transport::{Call, Payload};

/// The largest manifest that is read: what Layeryard itself accepts; the specification demands 4 MiB of registries.
pub const MANIFEST_BYTES_MAX: u64 = 4 * 1024 * 1024;
const DIGEST_HEADER: &str = "docker-content-digest";

/// A manifest with its verified digest.
#[derive(Clone, Debug)]
pub struct FetchedManifest {
    pub digest: Digest,
    pub manifest: Manifest,
}

impl FetchedManifest {
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(
            self.manifest.media_type.clone(),
            self.digest,
            self.manifest.size(),
        )
    }
}

impl Registry {
    /// What a reference names now. Asks with HEAD, which costs nothing where GET is counted; registries that give no
    /// digest there are asked with GET.
    pub async fn resolve(&self, repository: &RepoName, reference: &Reference) -> Result<Descriptor, Error> {
        let call = self.manifest_call(Method::HEAD, repository, reference);
        let place = self.transport.place(call.what.clone());
        let answer = self.transport.send(call).await?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
                return Ok(self.manifest(repository, reference).await?.descriptor());
            }
            _ => return Err(self.explain(place, repository, reference, answer).await),
        }
        let headers = answer.headers();
        let length = headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        match (digest_header(&place, headers)?, content_type(headers), length) {
            (Some(digest), Some(media_type), Some(size)) => Ok(Descriptor::new(media_type, digest, size)),
            _ => Ok(self.manifest(repository, reference).await?.descriptor()),
        }
    }

    /// Fetches a manifest and verifies its digest: against the reference if it is one, else against the header.
    pub async fn manifest(
        &self,
        repository: &RepoName,
        reference: &Reference,
    ) -> Result<FetchedManifest, Error> {
        let call = self.manifest_call(Method::GET, repository, reference);
        let place = self.transport.place(call.what.clone());
        let answer = self.transport.expect(call, &[StatusCode::OK]).await?;
        let media_type = content_type(answer.headers());
        let announced = match reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(_) => digest_header(&place, answer.headers())?,
        };
        let bytes = read_limited(&place, answer, MANIFEST_BYTES_MAX).await?;
        let algorithm = announced.map_or(Algorithm::Sha256, |digest| digest.algorithm());
        let digest = Digest::of(algorithm, &bytes);
        if let Some(expected) = announced.filter(|expected| *expected != digest) {
            return Err(Error::DigestMismatch {
                place,
                expected: Box::new(expected),
                actual: Box::new(digest),
            });
        }
        // Some registries send OCI manifests as plain JSON; the document's own type then counts.
        let media_type = media_type.filter(|text| media_type::ACCEPTED_MANIFESTS.contains(&text.as_str()));
        let manifest = Manifest::parse(media_type.as_deref(), bytes.into())
            .map_err(|source| Error::Manifest { place, source })?;
        Ok(FetchedManifest { digest, manifest })
    }

    /// Fetches the manifest for one platform: through the index if the reference names one.
    pub async fn platform_manifest(
        &self,
        repository: &RepoName,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<FetchedManifest, Error> {
        let fetched = self.manifest(repository, reference).await?;
        if !fetched.manifest.is_index() {
            return Ok(fetched);
        }
        let place = self.transport.place(manifest_name(repository, reference));
        let child = choose_platform(&place, &fetched.manifest, platform)?.digest;
        self.manifest(repository, &Reference::Digest(child)).await
    }

    /// Stores a manifest byte for byte under a tag or its digest.
    pub async fn put_manifest(
        &self,
        repository: &RepoName,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Digest, Error> {
        let what = manifest_name(repository, reference);
        let path = format!("/v2/{repository}/manifests/{reference}");
        let mut call = self
            .transport
            .call(Method::PUT, &path, Scopes::push(repository), what);
        let place = self.transport.place(call.what.clone());
        let content_type = HeaderValue::from_str(media_type).map_err(|_| Error::Protocol {
            place: place.clone(),
            detail: format!("media type {media_type:?} cannot be a header"),
        })?;
        call.headers.insert(CONTENT_TYPE, content_type);
        call.body = Payload::Bytes(bytes.clone());
        let answer = self
            .transport
            .expect(call, &[StatusCode::CREATED, StatusCode::OK])
            .await?;
        let stored = digest_header(&place, answer.headers())?;
        let named = reference.digest().copied().or(stored);
        let algorithm = named.map_or(Algorithm::Sha256, |digest| digest.algorithm());
        let digest = Digest::of(algorithm, &bytes);
        match stored.filter(|stored| *stored != digest) {
            Some(actual) => Err(Error::DigestMismatch {
                place,
                expected: Box::new(digest),
                actual: Box::new(actual),
            }),
            None => Ok(digest),
        }
    }

    /// Deletes a tag, or a manifest with all its tags.
    pub async fn delete_manifest(&self, repository: &RepoName, reference: &Reference) -> Result<(), Error> {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let what = manifest_name(repository, reference);
        let call = self
            .transport
            .call(Method::DELETE, &path, Scopes::delete(repository), what);
        self.transport
            .expect(
                call,
                &[StatusCode::ACCEPTED, StatusCode::OK, StatusCode::NO_CONTENT],
            )
            .await?;
        Ok(())
    }

    fn manifest_call(&self, method: Method, repository: &RepoName, reference: &Reference) -> Call {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let what = manifest_name(repository, reference);
        let mut call = self.transport.call(method, &path, Scopes::pull(repository), what);
        for accepted in media_type::ACCEPTED_MANIFESTS {
            call.headers.append(ACCEPT, HeaderValue::from_static(accepted));
        }
        call
    }

    /// An answer to HEAD has no body that could say what is wrong; a GET of something that is missing costs nothing.
    async fn explain(
        &self,
        place: Place,
        repository: &RepoName,
        reference: &Reference,
        answer: Response,
    ) -> Error {
        if matches!(
            answer.status(),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND
        ) {
            let call = self.manifest_call(Method::GET, repository, reference);
            if let Ok(explained) = self.transport.send(call).await
                && explained.status() == answer.status()
            {
                return Error::from_answer(place, explained).await;
            }
        }
        Error::from_answer(place, answer).await
    }
}

/// The child of an index that runs on `platform`.
pub fn choose_platform<'a>(
    place: &Place,
    index: &'a Manifest,
    platform: &Platform,
) -> Result<&'a Descriptor, Error> {
    let accepted = |child: &&Descriptor| {
        child
            .platform
            .as_ref()
            .is_some_and(|offered| platform.accepts(offered))
    };
    index.children().iter().find(accepted).ok_or_else(|| {
        let offered: Vec<String> = index
            .children()
            .iter()
            .filter_map(|child| child.platform.as_ref())
            // Attestations are listed under this platform.
            .filter(|offered| offered.os != "unknown")
            .map(ToString::to_string)
            .collect();
        Error::NoPlatform {
            place: place.clone(),
            platform: platform.to_string(),
            offered: if offered.is_empty() {
                "none".to_owned()
            } else {
                offered.join(", ")
            },
        }
    })
}

/// Reads a body of at most `limit_bytes`.
pub(crate) async fn read_limited(
    place: &Place,
    mut answer: Response,
    limit_bytes: u64,
) -> Result<Bytes, Error> {
    let mut body = BytesMut::new();
    loop {
        let chunk = tokio::time::timeout(STALL_TIMEOUT, answer.chunk())
            .await
            .map_err(|_| Error::TimedOut {
                place: place.clone(),
                seconds: STALL_TIMEOUT.as_secs(),
            })?
            .map_err(|source| Error::unreachable(place.clone(), source))?;
        let Some(chunk) = chunk else {
            return Ok(body.freeze());
        };
        if body.len() as u64 + chunk.len() as u64 > limit_bytes {
            return Err(Error::TooLarge {
                place: place.clone(),
                limit_bytes,
            });
        }
        body.extend_from_slice(&chunk);
    }
}

fn digest_header(place: &Place, headers: &HeaderMap) -> Result<Option<Digest>, Error> {
    let Some(value) = headers.get(DIGEST_HEADER) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    text.parse().map(Some).map_err(|error| Error::Protocol {
        place: place.clone(),
        detail: format!("Docker-Content-Digest: {error}"),
    })
}

/// The media type without parameters.
fn content_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let bare = text.split(';').next().unwrap_or_default().trim();
    (!bare.is_empty()).then(|| bare.to_owned())
}
