//! Bringing one image from its registry into this one: blobs first, manifests when their blobs are durable, the tag last.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use oci::{Descriptor, Digest, ImageRef, Manifest, Platform, Reference, RepoName, Tag};
use tokio::sync::mpsc::UnboundedSender;

use super::{Result, Transfer, UpstreamError, choose};
use crate::metadata::Origin;
use crate::service::{BodyError, Chunk, Principal, PushManifest, Registry, RegistryError};

/// Layers on their way at once.
const PARALLEL_BLOBS: usize = 4;
/// How often a fetch tells how far it is.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// An image of an upstream and where it goes.
pub(super) struct Fetch<'a> {
    pub(super) registry: &'a Arc<Registry>,
    pub(super) principal: &'a Principal,
    pub(super) remote: client::Registry,
    pub(super) image: &'a ImageRef,
    /// Where it is kept here.
    pub(super) repository: &'a RepoName,
    pub(super) platform: &'a Platform,
    pub(super) progress: &'a UnboundedSender<Transfer>,
}

impl Fetch<'_> {
    /// What the name means there now. A digest needs no asking.
    pub(super) async fn upstream_digest(&self) -> Result<Digest> {
        if let Some(digest) = self.image.digest {
            return Ok(digest);
        }
        let found = self
            .remote
            .resolve(&self.image.repository, &self.image.reference())
            .await;
        Ok(found.map_err(|source| self.failed(source))?.digest)
    }

    /// Fetches the image that has this digest: of an index the index itself and the platform's image.
    pub(super) async fn everything(&self, digest: Digest) -> Result<(Digest, Digest)> {
        tracing::info!(image = %self.image, %digest, "fetching from upstream");
        let root = self.manifest(digest).await?;
        if !root.is_index() {
            self.blobs(&root).await?;
            self.keep(root, digest, self.tags()).await?;
            return Ok((digest, digest));
        }
        let child = choose(&root, self.platform, self.image)?;
        let manifest = self.manifest(child).await?;
        if manifest.is_index() {
            let place = client::Place::new(self.remote.host(), self.image.to_string());
            let detail = format!("{child}, listed as an image for {}, is an index", self.platform);
            return Err(self.failed(client::Error::Protocol { place, detail }));
        }
        self.blobs(&manifest).await?;
        self.keep(manifest, child, Vec::new()).await?;
        self.keep(root, digest, self.tags()).await?;
        Ok((digest, child))
    }

    /// Makes the tag name a manifest that is here.
    pub(super) async fn tag(&self, digest: &Digest) -> Result<()> {
        let Some(tag) = self.tags().into_iter().next() else {
            return Ok(());
        };
        let by_digest = Reference::Digest(*digest);
        let held = self
            .registry
            .manifest(self.repository, &Reference::Tag(tag))
            .await;
        if matches!(&held, Ok(held) if held.digest == *digest) {
            return Ok(());
        }
        let stored = self.registry.manifest(self.repository, &by_digest).await?;
        let manifest =
            Manifest::parse(Some(&stored.media_type), stored.bytes.to_vec()).map_err(RegistryError::from)?;
        self.keep(manifest, *digest, self.tags()).await
    }

    /// The tag to set here: none where the name is a digest.
    fn tags(&self) -> Vec<Tag> {
        match self.image.reference() {
            Reference::Tag(tag) => vec![tag],
            Reference::Digest(_) => Vec::new(),
        }
    }

    async fn manifest(&self, digest: Digest) -> Result<Manifest> {
        let reference = Reference::Digest(digest);
        let fetched = self.remote.manifest(&self.image.repository, &reference).await;
        Ok(fetched.map_err(|source| self.failed(source))?.manifest)
    }

    async fn keep(&self, manifest: Manifest, digest: Digest, tags: Vec<Tag>) -> Result<()> {
        let push = PushManifest {
            origin: Origin::default(),
            repository: self.repository.clone(),
            actor: self.principal.actor(),
            content_type: Some(manifest.media_type.clone()),
            bytes: manifest.into_bytes().into(),
            digest: Some(digest),
            tags,
            sparse: true,
        };
        let kept = self.registry.push_manifest(push).await;
        kept.map_err(|source| self.not_kept(source))?;
        Ok(())
    }

    /// Brings config and layers here, telling now and then how far that is.
    async fn blobs(&self, manifest: &Manifest) -> Result<()> {
        let total_bytes = manifest.blobs().map(|blob| blob.size).sum();
        let done = Arc::new(AtomicU64::new(0));
        let mut transfers = std::pin::pin!(
            futures::stream::iter(manifest.blobs().map(Ok))
                .try_for_each_concurrent(PARALLEL_BLOBS, |blob| self.blob(blob, &done))
        );
        let mut told = 0;
        loop {
            let ended = tokio::time::timeout(TELL_EVERY, &mut transfers).await;
            let done_bytes = done.load(Ordering::Relaxed);
            if done_bytes != told {
                told = done_bytes;
                // Who asked may have gone.
                let _ = self.progress.send(Transfer {
                    done_bytes,
                    total_bytes,
                });
            }
            if let Ok(outcome) = ended {
                return outcome;
            }
        }
    }

    async fn blob(&self, blob: &Descriptor, done: &Arc<AtomicU64>) -> Result<()> {
        match self.registry.blob(self.repository, &blob.digest).await {
            Ok(_) => return Ok(()),
            Err(RegistryError::BlobUnknown { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        // Another repository that the caller may pull from has it: no transfer.
        let mounted = self
            .registry
            .mount(self.principal, self.repository, None, &blob.digest)
            .await;
        if mounted.map_err(|source| self.not_kept(source))? {
            return Ok(());
        }
        let stream = self.remote.open_blob_at(&self.image.repository, blob, 0).await;
        let stream = stream.map_err(|source| self.failed(source))?;
        // The store verifies the digest; what the connection says is passed through it as it is.
        let counter = Arc::clone(done);
        let stream = stream.inspect_ok(move |piece| {
            counter.fetch_add(piece.len() as u64, Ordering::Relaxed);
        });
        let body = stream.map(|piece| piece.map_err(|error| Box::new(error) as BodyError));
        let (actor, chunk) = (
            self.principal.actor(),
            Chunk {
                offset: None,
                length: Some(blob.size),
            },
        );
        let pushed = self
            .registry
            .push_blob(self.repository, &actor, blob.digest, chunk, Box::pin(body))
            .await;
        pushed.map_err(|error| self.blob_error(error))
    }

    /// A transfer that broke is the upstream's failure, not this registry's.
    fn blob_error(&self, error: RegistryError) -> UpstreamError {
        match error {
            RegistryError::BodyBroken { source, received } => match source.downcast::<client::Error>() {
                Ok(source) => self.failed(*source),
                Err(source) => self.not_kept(RegistryError::BodyBroken { source, received }),
            },
            RegistryError::DigestMismatch { expected, actual } => {
                let place = client::Place::new(self.remote.host(), format!("a layer of {}", self.image));
                let (expected, actual) = (Box::new(expected), Box::new(actual));
                self.failed(client::Error::DigestMismatch {
                    place,
                    expected,
                    actual,
                })
            }
            other => self.not_kept(other),
        }
    }

    fn failed(&self, source: client::Error) -> UpstreamError {
        UpstreamError::Fetch {
            image: self.image.to_string(),
            source,
        }
    }

    fn not_kept(&self, source: RegistryError) -> UpstreamError {
        UpstreamError::Keep {
            image: self.image.to_string(),
            source,
        }
    }
}
