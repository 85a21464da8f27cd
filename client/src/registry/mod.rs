//! `/v2` of one registry (distribution spec 1.1), with the habits of real ones beside the text.

mod blobs;
mod lists;
mod manifests;
mod push;
mod upload;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use oci::{Reference, RepoName};
use reqwest::StatusCode;

use crate::api::Credential;
use crate::auth::Scopes;
use crate::endpoint::{Access, Options};
use crate::error::Error;
use crate::transport::Transport;

pub use blobs::{ByteStream, into_reader};
pub use lists::Page;
pub(crate) use manifests::read_limited;
pub use manifests::{FetchedManifest, MANIFEST_BYTES_MAX, choose_platform};
pub(crate) use push::watched;
pub use push::{BlobSource, BytesSource, FileSource};
pub use upload::Upload;

/// A body that brings nothing for this long is given up and asked for again from where it stopped.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// One registry. Cheap to clone; clones share connections and tokens.
#[derive(Clone)]
pub struct Registry {
    transport: Arc<Transport>,
}

impl Registry {
    /// A registry by its host as in an image reference (`docker.io`, `localhost:5000`) or by its URL. Nothing is sent yet.
    pub fn new(address: &str, options: Options) -> Result<Self, Error> {
        Ok(Self {
            transport: Arc::new(Transport::new(address, options)?),
        })
    }

    /// A registry as the user sees it: with the credential that `docker login` or `podman login` left for it.
    pub async fn for_user(host: &str, insecure: bool) -> Result<Self, Error> {
        let access = match crate::credentials::find_async(host).await? {
            Some(credential) => Access::Credential(credential),
            None => Access::Anonymous,
        };
        Self::new(
            host,
            Options {
                access,
                insecure,
                http: None,
            },
        )
    }

    /// A registry with the credential given.
    pub fn with_credential(host: &str, credential: Option<Credential>) -> Result<Self, Error> {
        let access = credential.map_or(Access::Anonymous, Access::Credential);
        Self::new(
            host,
            Options {
                access,
                ..Options::default()
            },
        )
    }

    /// The registry behind a unix socket, spoken to with a bearer token: how a worker reaches its server.
    pub fn unix(socket: &Path, token: &str) -> Result<Self, Error> {
        Ok(Self {
            transport: Arc::new(Transport::unix(socket, Access::Bearer(token.to_owned()))?),
        })
    }

    /// The host as the user wrote it.
    pub fn host(&self) -> &str {
        self.transport.host()
    }

    /// Asks whether a registry that speaks the distribution API is there and lets us in.
    pub async fn ping(&self) -> Result<(), Error> {
        let call = self
            .transport
            .call(Method::GET, "/v2/", Scopes::default(), "the registry API");
        self.transport.expect(call, &[StatusCode::OK]).await?;
        Ok(())
    }

    /// Whether both are the same registry, so that blobs can be mounted from one to the other.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.transport, &other.transport) || self.host() == other.host()
    }

    fn blob_path(repository: &RepoName, digest: impl std::fmt::Display) -> String {
        format!("/v2/{repository}/blobs/{digest}")
    }
}

/// How people write the name of a manifest.
pub(crate) fn manifest_name(repository: &RepoName, reference: &Reference) -> String {
    match reference {
        Reference::Tag(tag) => format!("{repository}:{tag}"),
        Reference::Digest(digest) => format!("{repository}@{digest}"),
    }
}
