//! Manifests and tags: reading, pushing, deleting.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use oci::{Algorithm, Digest, Manifest, Reference, RepoName, Tag};

use super::{Registry, RegistryError, Result};
use crate::metadata::{DeleteOutcome, Origin, PutManifest, PutOutcome, StoredManifest};
use crate::traces::{self, Traced as _};

/// A manifest as it was sent.
#[derive(Clone, Debug)]
pub(crate) struct PushManifest {
    pub(crate) repository: RepoName,
    pub(crate) actor: String,
    pub(crate) origin: Origin,
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
        let unknown = || RegistryError::ManifestUnknown {
            repository: repository.clone(),
            reference: reference.clone(),
        };
        if self.metadata.is_shared() {
            let found = match reference {
                Reference::Digest(digest) => self.find_manifest(repository, digest).await?,
                Reference::Tag(tag) => {
                    let finding = self.metadata.find_tagged(repository, tag);
                    finding.within(self.query("find_tagged")).await?
                }
            };
            return found.map(Arc::new).ok_or_else(unknown);
        }
        let digest = match reference {
            Reference::Digest(digest) => *digest,
            Reference::Tag(tag) => self.tagged(repository, tag).await?.ok_or_else(unknown)?,
        };
        let slot = match self.caches.manifests.get(repository, digest) {
            Ok(manifest) => return Ok(manifest),
            Err(slot) => slot,
        };
        let found = self.find_manifest(repository, &digest).await?;
        let manifest = Arc::new(found.ok_or_else(unknown)?);
        self.caches.manifests.put(slot, Arc::clone(&manifest));
        Ok(manifest)
    }

    async fn find_manifest(&self, repository: &RepoName, digest: &Digest) -> Result<Option<StoredManifest>> {
        let finding = self.metadata.find_manifest(repository, digest);
        Ok(finding.within(self.query("find_manifest")).await?)
    }

    /// What a tag names.
    async fn tagged(&self, repository: &RepoName, tag: &Tag) -> Result<Option<Digest>> {
        let slot = match self.caches.tags.get(repository, tag) {
            Ok(digest) => return Ok(Some(*digest)),
            Err(slot) => slot,
        };
        let resolving = self.metadata.resolve_tag(repository, tag);
        let digest = resolving.within(self.query("resolve_tag")).await?;
        if let Some(digest) = digest {
            self.caches.tags.put(slot, Arc::new(digest));
        }
        Ok(digest)
    }

    /// Checks and stores a manifest and sets its tags, all or nothing. Durable.
    pub(crate) async fn push_manifest(self: &Arc<Self>, push: PushManifest) -> Result<Pushed> {
        self.require_writable(&push.repository)?;
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
        let room = self.room(&repository, put.bytes.len() as u64).await?;
        let registry = Arc::clone(self);
        traces::spawn(async move {
            let _room = room;
            let tags = put.tags.clone();
            let putting = registry.metadata.put_manifest(put);
            let outcome = putting.within(registry.query("put_manifest")).await?;
            registry.caches.manifests.changed(&repository, actual);
            for tag in &tags {
                registry.caches.tags.changed(&repository, tag);
            }
            match outcome {
                PutOutcome::Stored => Ok(Pushed {
                    digest: actual,
                    subject,
                }),
                PutOutcome::Immutable(tag) => Err(registry.immutable_error(&repository, &tag)),
                PutOutcome::Missing { blobs, manifests } => Err(RegistryError::ManifestIncomplete {
                    repository,
                    blobs,
                    manifests,
                }),
            }
        })
        .await?
    }

    /// Stores a manifest of the journal, whatever of its content is here.
    pub(crate) async fn replay_manifest(&self, push: PushManifest) -> Result<()> {
        let algorithm = push.digest.map_or(Algorithm::Sha256, |digest| digest.algorithm());
        let digest = Digest::of(algorithm, &push.bytes);
        let manifest = Manifest::parse(push.content_type.as_deref(), push.bytes.to_vec())?;
        let mut put = self.put_of(push, digest, manifest);
        put.blobs_required = false;
        put.children_required = false;
        self.metadata.put_manifest(put).await?;
        Ok(())
    }

    fn put_of(&self, push: PushManifest, digest: Digest, manifest: Manifest) -> PutManifest {
        let descriptor = manifest
            .subject
            .is_some()
            .then(|| serde_json::to_string(&manifest.referrer_descriptor(digest)).unwrap_or_default());
        let blobs: BTreeSet<Digest> = manifest.blobs().map(|blob| blob.digest).collect();
        let children: BTreeSet<Digest> = manifest.children().iter().map(|child| child.digest).collect();
        PutManifest {
            digest,
            subject: manifest.subject.as_ref().map(|subject| subject.digest),
            descriptor,
            blobs: blobs.into_iter().collect(),
            children: children.into_iter().collect(),
            blobs_required: !self.sparse_indexes,
            children_required: !(push.sparse || self.sparse_indexes),
            immutable: self.immutable(&push.repository, &push.tags),
            tags: push.tags,
            actor: push.actor,
            origin: push.origin,
            bytes: push.bytes,
            repository: push.repository,
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
        self.require_writable(repository)?;
        if let Reference::Tag(tag) = reference
            && !self.immutable(repository, std::slice::from_ref(tag)).is_empty()
        {
            return Err(self.immutable_error(repository, tag));
        }
        let (registry, repository, reference) = (Arc::clone(self), repository.clone(), reference.clone());
        let actor = actor.to_owned();
        traces::spawn(async move {
            let outcome = match &reference {
                Reference::Tag(tag) => {
                    let deleting = registry.metadata.delete_tag(&repository, tag, &actor);
                    let deleted = deleting.within(registry.query("delete_tag")).await?;
                    registry.caches.tags.changed(&repository, tag);
                    if deleted {
                        DeleteOutcome::Deleted
                    } else {
                        DeleteOutcome::Unknown
                    }
                }
                Reference::Digest(digest) => {
                    let immutable = registry.policies.immutable_patterns(&repository);
                    let deleting = registry
                        .metadata
                        .delete_manifest(&repository, digest, &immutable, &actor);
                    let outcome = deleting.within(registry.query("delete_manifest")).await?;
                    registry.caches.manifests.changed(&repository, digest);
                    // Its tags went with it, whichever they were.
                    registry.caches.tags.all_changed();
                    outcome
                }
            };
            match (outcome, &reference) {
                (DeleteOutcome::Deleted, _) => Ok(()),
                (DeleteOutcome::Tagged(tag), _) => Err(registry.immutable_error(&repository, &tag)),
                (DeleteOutcome::ReferencedBy(index), Reference::Digest(digest)) => {
                    Err(RegistryError::ManifestInUse {
                        digest: *digest,
                        index,
                    })
                }
                _ => Err(RegistryError::ManifestUnknown {
                    repository,
                    reference,
                }),
            }
        })
        .await?
    }
}
