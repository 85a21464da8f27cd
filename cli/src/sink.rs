//! [`ImageSink`]: layers and manifests, to the server.

use async_trait::async_trait;
use builder::services::{BlobUpload, ImageSink, ServiceError};
use bytes::Bytes;
use client::{BytesSource, Registry, Upload};
use oci::{Algorithm, Digest, Manifest, Reference, RepoName, Tag};

pub(crate) struct Sink {
    pub(crate) registry: Registry,
    /// Keeps what the build makes.
    pub(crate) repository: RepoName,
}

struct Layer(Upload);

#[async_trait]
impl ImageSink for Sink {
    async fn has_blob(&self, digest: &Digest) -> Result<bool, ServiceError> {
        let size = self.registry.stat_blob(&self.repository, digest).await;
        size.map(|size| size.is_some()).map_err(ServiceError::from_error)
    }

    async fn mount(&self, from: &RepoName, digest: &Digest) -> Result<bool, ServiceError> {
        if *from == self.repository {
            return self.has_blob(digest).await;
        }
        self.registry
            .mount_blob(&self.repository, digest, from)
            .await
            .map_err(ServiceError::from_error)
    }

    async fn put_blob(&self, digest: &Digest, data: Bytes) -> Result<(), ServiceError> {
        let size = data.len() as u64;
        let pushed = self
            .registry
            .push_blob(&self.repository, digest, size, &BytesSource(data))
            .await;
        pushed.map_err(ServiceError::from_error)
    }

    async fn start_upload(&self) -> Result<Box<dyn BlobUpload>, ServiceError> {
        let upload = self
            .registry
            .start_upload(&self.repository)
            .await
            .map_err(ServiceError::from_error)?;
        Ok(Box::new(Layer(upload)))
    }

    async fn put_manifest(&self, media_type: &str, manifest: Bytes) -> Result<Digest, ServiceError> {
        let reference = Reference::Digest(Digest::of(Algorithm::Sha256, &manifest));
        let stored = self
            .registry
            .put_manifest(&self.repository, &reference, media_type, manifest)
            .await;
        stored.map_err(ServiceError::from_error)
    }

    async fn tag(
        &self,
        repository: &RepoName,
        tag: &Tag,
        media_type: &str,
        manifest: Bytes,
    ) -> Result<(), ServiceError> {
        if *repository != self.repository {
            self.mount_into(repository, media_type, &manifest).await?;
        }
        let reference = Reference::Tag(tag.clone());
        let stored = self
            .registry
            .put_manifest(repository, &reference, media_type, manifest)
            .await;
        stored.map(drop).map_err(ServiceError::from_error)
    }
}

impl Sink {
    /// Makes the blobs of an image of ours available in another repository.
    async fn mount_into(
        &self,
        target: &RepoName,
        media_type: &str,
        manifest: &Bytes,
    ) -> Result<(), ServiceError> {
        let manifest =
            Manifest::parse(Some(media_type), manifest.to_vec()).map_err(ServiceError::from_error)?;
        for blob in manifest.blobs() {
            let mounted = self
                .registry
                .mount_blob(target, &blob.digest, &self.repository)
                .await;
            if !mounted.map_err(ServiceError::from_error)? {
                let (digest, from) = (&blob.digest, &self.repository);
                return Err(ServiceError::new(format!(
                    "the server did not mount {digest} of {from} into {target}"
                )));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl BlobUpload for Layer {
    async fn write(&mut self, data: Bytes) -> Result<(), ServiceError> {
        self.0.write(data).await.map_err(ServiceError::from_error)
    }

    async fn finish(self: Box<Self>, digest: &Digest) -> Result<(), ServiceError> {
        self.0.finish(digest).await.map_err(ServiceError::from_error)
    }
}
