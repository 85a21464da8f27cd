//! [`ImageSource`]: base images, from the server.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use builder::event::{Event, EventSink};
use builder::services::{ImageSource, ResolvedImage, ServiceError};
use client::api::ResolveRequest;
use client::api_client::Api;
use client::{Registry, into_reader};
use oci::{Descriptor, Platform, Reference, RepoName};
use tokio::io::AsyncRead;

/// The largest image configuration that is read. Docker's own limit is 8 MiB.
const CONFIG_BYTES_MAX: u64 = 8 << 20;

pub(crate) struct Images {
    pub(crate) api: Api,
    pub(crate) registry: Registry,
    pub(crate) events: Arc<dyn EventSink>,
}

#[async_trait]
impl ImageSource for Images {
    async fn resolve(&self, reference: &str, platform: &Platform) -> Result<ResolvedImage, ServiceError> {
        let request = ResolveRequest {
            reference: reference.to_owned(),
            platform: platform.clone(),
        };
        let found = self.api.resolve_image(&request).await.map_err(told)?;
        if let Some(message) = found.warning {
            self.events.emit(Event::Warning {
                message,
                line: None,
                code: None,
            });
        }
        let by_digest = Reference::Digest(found.manifest);
        let fetched = self
            .registry
            .manifest(&found.repository, &by_digest)
            .await
            .map_err(ServiceError::from_error)?;
        let Some(config) = fetched.manifest.config() else {
            return Err(ServiceError::new(format!(
                "{reference} is an index without an image for {platform}"
            )));
        };
        let config = self
            .registry
            .read_blob(&found.repository, config, CONFIG_BYTES_MAX)
            .await
            .map_err(ServiceError::from_error)?;
        Ok(ResolvedImage {
            repository: found.repository,
            digest: fetched.digest,
            media_type: fetched.manifest.media_type.clone(),
            manifest: fetched.manifest.into_bytes().into(),
            config,
        })
    }

    async fn open(
        &self,
        repository: &RepoName,
        layer: &Descriptor,
        offset: u64,
    ) -> Result<Pin<Box<dyn AsyncRead + Send>>, ServiceError> {
        let stream = self.registry.open_blob_at(repository, layer, offset).await;
        stream.map(into_reader).map_err(ServiceError::from_error)
    }
}

/// What the server says about an image; how it was asked, over a socket, is no matter of the user's.
fn told(error: client::Error) -> ServiceError {
    match error {
        client::Error::Answer { message, .. }
        | client::Error::NotFound { message, .. }
        | client::Error::Unauthorized { message, .. }
        | client::Error::Denied { message, .. } => ServiceError::new(message),
        other => ServiceError::from_error(other),
    }
}
