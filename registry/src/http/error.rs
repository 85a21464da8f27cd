//! The only place that turns errors into answers: one table of codes, one conversion a kind of error.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use client::api::{ErrorBody, ErrorItem};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use oci::{DigestError, NameError, ReferenceError};
use serde_json::json;

use super::body::is_stalled;
use crate::metadata::MetadataError;
use crate::report::chain;
use crate::service::RegistryError;
use crate::service::builds::BuildError;
use crate::service::cache::CacheError;
use crate::service::upstream::UpstreamError;
use crate::storage::StorageError;

/// `ENOSPC`.
const DISK_FULL: i32 = 28;

/// An answer that is an error.
#[derive(Debug)]
pub(crate) struct ApiError {
    items: Vec<ErrorItem>,
    status: StatusCode,
    headers: HeaderMap,
    /// The server's fault: what to log, kept from the caller.
    internal: Option<String>,
}

macro_rules! codes {
    ($($name:ident = $code:literal, $status:ident;)*) => {
        /// The error codes of the distribution specification and our own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Code { $($name,)* }

        impl Code {
            fn entry(self) -> (&'static str, StatusCode) {
                match self { $(Self::$name => ($code, StatusCode::$status),)* }
            }
        }
    };
}

codes! {
    BlobInUse = "DENIED", METHOD_NOT_ALLOWED;
    BlobUnknown = "BLOB_UNKNOWN", NOT_FOUND;
    BlobUploadBusy = "BLOB_UPLOAD_INVALID", CONFLICT;
    BodyStalled = "BLOB_UPLOAD_INVALID", REQUEST_TIMEOUT;
    BlobUploadInvalid = "BLOB_UPLOAD_INVALID", BAD_REQUEST;
    BlobUploadRange = "BLOB_UPLOAD_INVALID", RANGE_NOT_SATISFIABLE;
    BuildUnknown = "BUILD_UNKNOWN", NOT_FOUND;
    ContextUnknown = "CONTEXT_UNKNOWN", NOT_FOUND;
    Exists = "EXISTS", CONFLICT;
    EventsGap = "EVENTS_GAP", CONFLICT;
    TooManyRequests = "TOOMANYREQUESTS", TOO_MANY_REQUESTS;
    BlobUploadUnknown = "BLOB_UPLOAD_UNKNOWN", NOT_FOUND;
    Denied = "DENIED", FORBIDDEN;
    DigestInvalid = "DIGEST_INVALID", BAD_REQUEST;
    Internal = "UNKNOWN", INTERNAL_SERVER_ERROR;
    ManifestBlobUnknown = "MANIFEST_BLOB_UNKNOWN", NOT_FOUND;
    ManifestInUse = "DENIED", METHOD_NOT_ALLOWED;
    ManifestInvalid = "MANIFEST_INVALID", BAD_REQUEST;
    ManifestTooLarge = "SIZE_INVALID", PAYLOAD_TOO_LARGE;
    ManifestUnknown = "MANIFEST_UNKNOWN", NOT_FOUND;
    MethodNotAllowed = "UNSUPPORTED", METHOD_NOT_ALLOWED;
    NameInvalid = "NAME_INVALID", BAD_REQUEST;
    NameUnknown = "NAME_UNKNOWN", NOT_FOUND;
    NotFound = "NOT_FOUND", NOT_FOUND;
    PageInvalid = "PAGINATION_NUMBER_INVALID", BAD_REQUEST;
    Range = "RANGE_INVALID", RANGE_NOT_SATISFIABLE;
    RequestInvalid = "REQUEST_INVALID", BAD_REQUEST;
    SizeInvalid = "SIZE_INVALID", BAD_REQUEST;
    StorageFull = "STORAGE_FULL", INSUFFICIENT_STORAGE;
    NotInTrash = "NOT_IN_TRASH", NOT_FOUND;
    TagInvalid = "TAG_INVALID", BAD_REQUEST;
    TagTaken = "TAG_TAKEN", CONFLICT;
    TooLarge = "SIZE_INVALID", PAYLOAD_TOO_LARGE;
    Unauthorized = "UNAUTHORIZED", UNAUTHORIZED;
    Unavailable = "UNAVAILABLE", SERVICE_UNAVAILABLE;
    BadGateway = "UPSTREAM_FAILED", BAD_GATEWAY;
}

impl ApiError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        let (name, status) = code.entry();
        let item = ErrorItem {
            code: name.to_owned(),
            message: message.into(),
            detail: None,
        };
        Self {
            items: vec![item],
            status,
            headers: HeaderMap::new(),
            internal: None,
        }
    }

    /// The server's own fault: the cause is logged, the caller learns that there was one.
    pub(crate) fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut api = Self::new(Code::Internal, "internal error: the server's log has the details");
        api.internal = Some(chain(error));
        api
    }

    pub(crate) fn with_detail(mut self, detail: serde_json::Value) -> Self {
        if let Some(item) = self.items.first_mut() {
            item.detail = Some(detail);
        }
        self
    }

    pub(crate) fn with_header(mut self, name: header::HeaderName, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.headers.insert(name, value);
        }
        self
    }
}

impl ApiError {
    pub(super) fn is_unauthorized(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED
    }

    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
    }

    /// A refusal to somebody who has not said who they are: they may, and ask again.
    pub(super) fn into_log_in(mut self) -> Self {
        if self.status == StatusCode::FORBIDDEN {
            let (code, status) = Code::Unauthorized.entry();
            self.status = status;
            for item in &mut self.items {
                code.clone_into(&mut item.code);
            }
        }
        self
    }

    /// Says how, unless it was said.
    pub(super) fn with_challenge(mut self, challenge: HeaderValue) -> Self {
        self.headers.entry(header::WWW_AUTHENTICATE).or_insert(challenge);
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let Some(cause) = &self.internal {
            tracing::error!(cause, "request failed");
        }
        let body = serde_json::to_vec(&ErrorBody { errors: self.items }).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        use RegistryError as E;
        let message = error.to_string();
        let new = |code| Self::new(code, message.clone());
        match &error {
            E::Denied { .. } | E::NotAdmin { .. } => new(Code::Denied),
            E::ScopeTooSmall { .. } => new(Code::Unauthorized),
            E::NameUnknown(_) => new(Code::NameUnknown),
            E::BlobUnknown { digest, .. } => new(Code::BlobUnknown).with_detail(json!({ "digest": digest })),
            E::BlobInUse { manifest, .. } => {
                new(Code::BlobInUse).with_detail(json!({ "manifest": manifest }))
            }
            E::UploadUnknown(_) => new(Code::BlobUploadUnknown),
            E::UploadBusy(_) => new(Code::BlobUploadBusy).with_header(header::RETRY_AFTER, "1"),
            // The handler knows the path and adds Location and Range.
            E::UploadOffset { offset, .. } => {
                new(Code::BlobUploadRange).with_detail(json!({ "offset": offset }))
            }
            E::BodyLength { .. } => new(Code::SizeInvalid),
            E::BodyBroken { source, .. } if is_stalled(source.as_ref()) => {
                Self::new(Code::BodyStalled, chain(&error))
            }
            E::BodyBroken { .. } => new(Code::BlobUploadInvalid),
            E::DigestMismatch { expected, actual } => {
                new(Code::DigestInvalid).with_detail(json!({ "expected": expected, "actual": actual }))
            }
            E::ManifestUnknown { reference, .. } => {
                new(Code::ManifestUnknown).with_detail(json!({ "reference": reference.to_string() }))
            }
            E::ManifestInvalid(_) => new(Code::ManifestInvalid),
            E::ManifestTooLarge { limit } => {
                new(Code::ManifestTooLarge).with_detail(json!({ "limit_bytes": limit }))
            }
            E::BlobTooLarge { limit } => new(Code::TooLarge).with_detail(json!({ "limit_bytes": limit })),
            E::ManifestIncomplete { blobs, manifests, .. } => incomplete(blobs, manifests),
            E::Policy { rule, .. } => new(Code::Denied).with_detail(json!({ "rule": rule })),
            E::NotInTrash { .. } => new(Code::NotInTrash),
            E::TagTaken { tag, digest, .. } => {
                new(Code::TagTaken).with_detail(json!({ "tag": tag, "digest": digest }))
            }
            E::ManifestInUse { index, .. } => new(Code::ManifestInUse).with_detail(json!({ "index": index })),
            E::Storage(StorageError::Reserved { .. }) => Self {
                internal: Some(chain(&error)),
                ..new(Code::StorageFull)
            },
            E::Storage(storage) if storage.is_full() => Self {
                internal: Some(chain(&error)),
                ..Self::new(Code::StorageFull, "the server's disk is full")
            },
            E::Metadata(MetadataError::Unavailable { .. }) => Self {
                internal: Some(chain(&error)),
                ..Self::new(Code::Unavailable, "the database does not answer: try again")
                    .with_header(header::RETRY_AFTER, "1")
            },
            E::Storage(storage) if storage.is_unavailable() => Self {
                internal: Some(chain(&error)),
                ..Self::new(
                    Code::Unavailable,
                    "the server's blob store does not answer: try again",
                )
                .with_header(header::RETRY_AFTER, "5")
            },
            E::Metadata(_) | E::Storage(_) | E::Journal(_) | E::Task(_) => Self::internal(&error),
        }
    }
}

/// One item for each thing that is missing, as the specification's `MANIFEST_BLOB_UNKNOWN` asks.
fn incomplete(blobs: &[oci::Digest], manifests: &[oci::Digest]) -> ApiError {
    let mut api = ApiError::new(Code::ManifestBlobUnknown, "");
    let item = |kind: &str, digest: &oci::Digest| ErrorItem {
        code: Code::ManifestBlobUnknown.entry().0.to_owned(),
        message: format!("{kind} {digest} is not in this repository: push it first"),
        detail: Some(json!({ "digest": digest })),
    };
    api.items = blobs.iter().map(|digest| item("blob", digest)).collect();
    api.items
        .extend(manifests.iter().map(|digest| item("manifest", digest)));
    api
}

impl From<BuildError> for ApiError {
    fn from(error: BuildError) -> Self {
        use BuildError as E;
        let message = error.to_string();
        let new = |code| Self::new(code, message.clone());
        match &error {
            E::Unknown(_) => new(Code::BuildUnknown),
            E::ContextUnknown(_) => new(Code::ContextUnknown),
            E::ContextTooLarge { limit_bytes } => {
                new(Code::TooLarge).with_detail(json!({ "limit_bytes": limit_bytes }))
            }
            E::ContextBroken { .. } | E::Invalid(_) => new(Code::RequestInvalid),
            E::NoWorker | E::Stopping => new(Code::Unavailable),
            E::Busy { .. } => new(Code::Unavailable).with_header(header::RETRY_AFTER, "10"),
            E::Denied { .. } | E::WrongToken(_) => new(Code::Denied),
            E::NoRoom(StorageError::Reserved { .. }) => new(Code::StorageFull),
            E::NoRoom(_) => Self::internal(&error),
            E::Gap { expected, .. } => new(Code::EventsGap).with_detail(json!({ "expected": expected })),
            E::File { source, .. } if source.raw_os_error() == Some(DISK_FULL) => Self {
                internal: Some(chain(&error)),
                ..Self::new(Code::StorageFull, "the server's disk is full")
            },
            E::File { .. } => Self::internal(&error),
        }
    }
}

impl From<UpstreamError> for ApiError {
    fn from(error: UpstreamError) -> Self {
        use UpstreamError as E;
        use client::Error as C;
        let message = error.to_string();
        let new = |code| Self::new(code, message.clone());
        match error {
            E::Name(error) => error.into(),
            E::Registry(error) | E::Keep { source: error, .. } => error.into(),
            E::Unknown { .. } | E::NoPlatform { .. } => new(Code::ManifestUnknown),
            E::Denied { .. } => new(Code::Denied),
            E::Fetch { source, .. } => match source {
                C::NotFound { .. } | C::NoPlatform { .. } => new(Code::ManifestUnknown),
                // Not 401: the caller's own credentials for this server are right.
                C::Unauthorized { .. } | C::Denied { .. } | C::AddressRefused { .. } | C::Realm { .. } => {
                    new(Code::Denied)
                }
                C::RateLimited {
                    retry_after_seconds, ..
                } => {
                    let wait = retry_after_seconds.unwrap_or(60).to_string();
                    new(Code::TooManyRequests).with_header(header::RETRY_AFTER, wait)
                }
                _ => new(Code::BadGateway),
            },
        }
    }
}

impl From<CacheError> for ApiError {
    fn from(error: CacheError) -> Self {
        let message = error.to_string();
        match error {
            CacheError::Registry(error) => error.into(),
            CacheError::Key(_) => Self::new(Code::RequestInvalid, message),
            CacheError::TooManyKeys(_) | CacheError::TooLong(_) => Self::new(Code::TooLarge, message),
            CacheError::LayerUnknown { digest, .. } => {
                Self::new(Code::BlobUnknown, message).with_detail(json!({ "digest": digest }))
            }
        }
    }
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        let code = match error {
            NameError::Tag(_) => Code::TagInvalid,
            NameError::Repository(_) | NameError::RepositoryTooLong(_) => Code::NameInvalid,
        };
        Self::new(code, error.to_string())
    }
}

impl From<DigestError> for ApiError {
    fn from(error: DigestError) -> Self {
        Self::new(Code::DigestInvalid, error.to_string())
    }
}

impl From<ReferenceError> for ApiError {
    fn from(error: ReferenceError) -> Self {
        match error {
            ReferenceError::Digest { source, .. } => source.into(),
            ReferenceError::Name { source, .. } => source.into(),
            other => Self::new(Code::NameInvalid, other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::Digest;

    #[test]
    fn every_missing_reference_is_listed() {
        let (blob, manifest) = (Digest::sha256(b"blob"), Digest::sha256(b"manifest"));
        let error = ApiError::from(RegistryError::ManifestIncomplete {
            repository: "app".parse().unwrap(),
            blobs: vec![blob],
            manifests: vec![manifest],
        });
        let details: Vec<_> = error
            .items
            .iter()
            .map(|item| item.detail.clone().unwrap())
            .collect();
        assert_eq!(
            details,
            [json!({ "digest": blob }), json!({ "digest": manifest })]
        );
        assert!(
            error
                .items
                .iter()
                .all(|item| item.code == "MANIFEST_BLOB_UNKNOWN")
        );
    }

    #[test]
    fn internal_causes_are_logged_and_not_told() {
        let error = RegistryError::Storage(StorageError::Store {
            path: "/secret".to_owned(),
            operation: "listing",
            source: std::io::Error::other("bad disk"),
        });
        let api = ApiError::from(error);
        assert_eq!(api.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!api.items[0].message.contains("secret"));
        assert!(
            api.internal
                .as_deref()
                .is_some_and(|cause| cause.contains("bad disk"))
        );
    }
}
