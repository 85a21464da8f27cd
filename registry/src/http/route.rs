//! `/v2/…` paths, taken apart by hand: repository names contain slashes, so that only the end of a path tells what it is.

use http::{Method, Uri};
use oci::{Digest, Reference, RepoName};

use super::{ApiError, Code};
use crate::storage::UploadId;

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Base,
    Catalog,
    Tags(RepoName),
    Manifest(RepoName, Reference),
    Blob(RepoName, Digest),
    Uploads(RepoName),
    Upload(RepoName, UploadId),
    Referrers(RepoName, Digest),
}

impl Route {
    /// Reads a path that begins with `/v2`. Identifiers have no characters that need percent-encoding but `:`, which
    /// some clients encode.
    pub(super) fn parse(uri: &Uri) -> Result<Self, ApiError> {
        let path = uri.path();
        let decoded;
        let path = if path.contains('%') {
            decoded = decode(path).ok_or_else(unknown)?;
            decoded.as_str()
        } else {
            path
        };
        match path {
            "/v2" | "/v2/" => return Ok(Self::Base),
            "/v2/_catalog" => return Ok(Self::Catalog),
            _ => {}
        }
        let rest = path.strip_prefix("/v2/").ok_or_else(unknown)?;
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return Ok(Self::Tags(name.parse()?));
        }
        if let Some(name) = rest
            .strip_suffix("/blobs/uploads")
            .or_else(|| rest.strip_suffix("/blobs/uploads/"))
        {
            return Ok(Self::Uploads(name.parse()?));
        }
        let (parent, last) = rest.rsplit_once('/').ok_or_else(unknown)?;
        if let Some(name) = parent.strip_suffix("/blobs/uploads") {
            let id = last.parse().map_err(|_| {
                ApiError::new(
                    Code::BlobUploadUnknown,
                    "upload id is malformed, so there is no such upload",
                )
            })?;
            return Ok(Self::Upload(name.parse()?, id));
        }
        if let Some(name) = parent.strip_suffix("/manifests") {
            return Ok(Self::Manifest(name.parse()?, last.parse()?));
        }
        if let Some(name) = parent.strip_suffix("/blobs") {
            return Ok(Self::Blob(name.parse()?, last.parse()?));
        }
        if let Some(name) = parent.strip_suffix("/referrers") {
            return Ok(Self::Referrers(name.parse()?, last.parse()?));
        }
        Err(unknown())
    }

    /// What a token must have been asked for.
    pub(super) fn scope(&self, method: &Method) -> Option<String> {
        let (name, actions) = match self {
            Self::Base => return None,
            Self::Catalog => return Some("registry:catalog:*".to_owned()),
            Self::Uploads(name) | Self::Upload(name, _) => (name, "pull,push"),
            Self::Tags(name) | Self::Referrers(name, _) => (name, "pull"),
            Self::Manifest(name, _) | Self::Blob(name, _) => match *method {
                Method::GET | Method::HEAD => (name, "pull"),
                Method::DELETE => (name, "pull,delete"),
                _ => (name, "pull,push"),
            },
        };
        Some(format!("repository:{name}:{actions}"))
    }

    /// The path with its variables as such, for traces.
    pub(super) fn template(&self) -> &'static str {
        match self {
            Self::Base => "/v2/",
            Self::Catalog => "/v2/_catalog",
            Self::Tags(_) => "/v2/{name}/tags/list",
            Self::Manifest(..) => "/v2/{name}/manifests/{reference}",
            Self::Blob(..) => "/v2/{name}/blobs/{digest}",
            Self::Uploads(_) => "/v2/{name}/blobs/uploads/",
            Self::Upload(..) => "/v2/{name}/blobs/uploads/{id}",
            Self::Referrers(..) => "/v2/{name}/referrers/{digest}",
        }
    }

    /// For metrics and logs.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Base => Kind::Base,
            Self::Catalog => Kind::Catalog,
            Self::Tags(_) => Kind::Tags,
            Self::Manifest(..) => Kind::Manifest,
            Self::Blob(..) => Kind::Blob,
            Self::Uploads(_) | Self::Upload(..) => Kind::Upload,
            Self::Referrers(..) => Kind::Referrers,
        }
    }
}

/// The resources that requests are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Base,
    Catalog,
    Tags,
    Manifest,
    Blob,
    Upload,
    Referrers,
    /// Beside `/v2`.
    Other,
}

fn unknown() -> ApiError {
    ApiError::new(Code::NotFound, "there is nothing at this path")
}

/// Whether a path is text once its percent-encoding is undone.
pub(super) fn is_text(path: &str) -> bool {
    !path.contains('%') || decode(path).is_some()
}

/// Undoes percent-encoding; whatever comes out is checked as strictly as if it had been sent plainly.
fn decode(path: &str) -> Option<String> {
    let mut out = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            let mut value = [0];
            hex::decode_to_slice(digits, &mut value).ok()?;
            out.push(value[0]);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parse(path: &str) -> Result<Route, ApiError> {
        Route::parse(&path.parse().unwrap())
    }

    #[test]
    fn names_with_slashes_and_confusing_components_are_found() {
        let name = |text: &str| text.parse::<RepoName>().unwrap();
        let digest: Digest = DIGEST.parse().unwrap();
        for (path, route) in [
            ("/v2/", Route::Base),
            ("/v2", Route::Base),
            ("/v2/_catalog", Route::Catalog),
            ("/v2/a/b/c/tags/list", Route::Tags(name("a/b/c"))),
            ("/v2/tags/list/tags/list", Route::Tags(name("tags/list"))),
            (
                "/v2/a/manifests/v1",
                Route::Manifest(name("a"), "v1".parse().unwrap()),
            ),
            (
                "/v2/manifests/manifests/list",
                Route::Manifest(name("manifests"), "list".parse().unwrap()),
            ),
            (&format!("/v2/a/blobs/{DIGEST}"), Route::Blob(name("a"), digest)),
            (
                &format!("/v2/a/blobs/{}", DIGEST.replace(':', "%3A")),
                Route::Blob(name("a"), digest),
            ),
            (
                &format!("/v2/a/referrers/{DIGEST}"),
                Route::Referrers(name("a"), digest),
            ),
            ("/v2/a/blobs/uploads/", Route::Uploads(name("a"))),
            ("/v2/a/blobs/uploads", Route::Uploads(name("a"))),
        ] {
            assert_eq!(parse(path).unwrap(), route, "{path}");
        }
    }

    #[test]
    fn traversal_and_nonsense_end_nowhere() {
        for path in [
            "/v2/../etc/manifests/x",
            "/v2/%2e%2e/manifests/x",
            "/v2/a%2f..%2fb/manifests/x",
            "/v2/A/manifests/x",
            "/v2/a/manifests/",
            "/v2/a/manifests/%2e%2e",
            "/v2/a/manifests/%zz",
            "/v2/a/blobs/sha256:zz",
            "/v2/a/blobs/uploads/..",
            "/v2/a/whatever",
            "/v2/a",
            "/v2//tags/list",
        ] {
            assert!(parse(path).is_err(), "{path}: {:?}", parse(path));
        }
        assert!(is_text("/api/v1/builds/a%2fb") && is_text("/api"));
        assert!(!is_text("/api/v1/builds/%c0%ae") && !is_text("/api/%zz") && !is_text("/api/%2"));
    }
}
