//! Manifests and tags: reading, pushing, deleting.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use oci::{Algorithm, Digest, Manifest, Reference, RepoName, Tag};

use super::cached::CacheKey;
use super::{Registry, RegistryError, Result};
use crate::metadata::{DeleteOutcome, PutManifest, PutOutcome, StoredManifest};

/// A manifest as it was sent.
#[derive(Clone, Debug)]
pub(crate) struct PushManifest {
    pub(crate) repository: RepoName,
    pub(crate) actor: String,
    /// Without parameters.
    pub(crate) content_type: Option<String>,
    pub(crate) bytes: Bytes,
    /// The digest it must have; none: it is only tagged, and known by its sha256.
    pub(crate) digest: Option<Digest>,
    pub(crate) tags: Vec<Tag>,
    /// Accept an index whose manifests are not all here.
    pub(crate) sparse: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Pushed {
    pub(crate) digest: Digest,
    pub(crate) subject: Option<Digest>,
}

impl Registry {
    pub(crate) async fn manifest(
        &self,
        repository: &RepoName,
        reference: &Reference,
    ) -> Result<Arc<StoredManifest>> {
        let slot = match self.caches.manifests.get(repository, &CacheKey::Reference(reference)) {
            Ok(manifest) => return Ok(manifest),
            Err(slot) => slot,
        };
        let unknown =
            || RegistryError::ManifestUnknown { repository: repository.clone(), reference: reference.clone() };
        let manifest = match reference {
            Reference::Digest(digest) => {
                let found = self.metadata.find_manifest(repository, digest).await?;
                Arc::new(found.ok_or_else(unknown)?)
            }
            Reference::Tag(tag) => {
                let digest = self.metadata.resolve_tag(repository, tag).await?.ok_or_else(unknown)?;
                // Through the cache: many tags may name one manifest.
                Box::pin(self.manifest(repository, &Reference::Digest(digest))).await.map_err(|error| match error
                {
                    RegistryError::ManifestUnknown { .. } => unknown(),
                    other => other,
                })?
            }
        };
        self.caches.manifests.put(slot, Arc::clone(&manifest));
        Ok(manifest)
    }

    /// Checks and stores a manifest and sets its tags, all or nothing. Durable.
    pub(crate) async fn push_manifest(self: &Arc<Self>, push: PushManifest) -> Result<Pushed> {
        let limit = self.limits.manifest_size_bytes_max;
        if push.bytes.len() as u64 > limit {
            return Err(RegistryError::ManifestTooLarge { limit });
        }
        let algorithm = push.digest.map_or(Algorithm::Sha256, |digest| digest.algorithm());
        let actual = Digest::of(algorithm, &push.bytes);
        if let Some(expected) = push.digest
            && expected != actual
        {
            return Err(RegistryError::DigestMismatch { expected, actual });
        }
        let manifest = Manifest::parse(push.content_type.as_deref(), push.bytes.to_vec())?;
        let subject = manifest.subject.as_ref().map(|subject| subject.digest);
        let repository = push.repository.clone();
        let put = self.put_of(push, actual, manifest);
        let registry = Arc::clone(self);
        tokio::spawn(async move {
            let outcome = registry.metadata.put_manifest(put).await?;
            registry.caches.manifests.changed(&repository);
            match outcome {
                PutOutcome::Stored => Ok(Pushed { digest: actual, subject }),
                PutOutcome::Missing { blobs, manifests } => {
                    Err(RegistryError::ManifestIncomplete { repository, blobs, manifests })
                }
            }
        })
        .await?
    }

    fn put_of(&self, push: PushManifest, digest: Digest, manifest: Manifest) -> PutManifest {
        let descriptor = manifest
            .subject
            .is_some()
            .then(|| serde_json::to_string(&manifest.referrer_descriptor(digest)).unwrap_or_default());
        let blobs: BTreeSet<Digest> = manifest.blobs().map(|blob| blob.digest).collect();
        let children: BTreeSet<Digest> = manifest.children().iter().map(|child| child.digest).collect();
        PutManifest {
            repository: push.repository,
            digest,
            subject: manifest.subject.as_ref().map(|subject| subject.digest),
            descriptor,
            blobs: blobs.into_iter().collect(),
            children: children.into_iter().collect(),
            blobs_required: !self.sparse_indexes,
            children_required: !(push.sparse || self.sparse_indexes),
            tags: push.tags,
            actor: push.actor,
            bytes: push.bytes,
            media_type: manifest.media_type,
            artifact_type: manifest.artifact_type,
        }
    }

    pub(crate) async fn delete_manifest(
        self: &Arc<Self>,
        repository: &RepoName,
        reference: &Reference,
        actor: &str,
    ) -> Result<()> {
        let (registry, repository, reference) = (Arc::clone(self), repository.clone(), reference.clone());
        let actor = actor.to_owned();
        tokio::spawn(async move {
            let outcome = match &reference {
                Reference::Tag(tag) => match registry.metadata.delete_tag(&repository, tag, &actor).await? {
                    true => DeleteOutcome::Deleted,
                    false => DeleteOutcome::Unknown,
                },
                Reference::Digest(digest) => {
                    registry.metadata.delete_manifest(&repository, digest, &actor).await?
                }
            };
            registry.caches.manifests.changed(&repository);
            match (outcome, &reference) {
                (DeleteOutcome::Deleted, _) => Ok(()),
                (DeleteOutcome::ReferencedBy(index), Reference::Digest(digest)) => {
                    Err(RegistryError::ManifestInUse { digest: *digest, index })
                }
                _ => Err(RegistryError::ManifestUnknown { repository, reference }),
            }
        })
        .await?
    }
}
