//! Verdicts as sentences, the trash, and bringing back what is in it.

use std::sync::Arc;

use client::api::collection as wire;
use oci::{Digest, RepoName};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::metadata::collection::{
    Cursor, Explain, Explained, Fate, Kind, Reason, TrashCursor, TrashedManifest, TrashedTag, Undelete,
    UndeleteOutcome,
};
use crate::service::{Registry, RegistryError, Result};

impl Registry {
    /// The fate of everything that waits for a review, or of all that one repository has.
    pub(crate) async fn explain(
        &self,
        repository: Option<&RepoName>,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<wire::ExplainPage> {
        let question = match repository {
            None => Explain::Reviews { after, limit },
            Some(repository) => Explain::Repository {
                repository: repository.clone(),
                after,
                limit,
            },
        };
        let page = self.metadata.explain(question).await?;
        let tags = match (repository, after) {
            (Some(repository), None) => self.explain_tags(repository).await?,
            _ => Vec::new(),
        };
        Ok(wire::ExplainPage {
            tags,
            items: page.items.iter().map(item).collect(),
            next: page.next.map(|cursor| cursor.to_string()),
        })
    }

    /// Why what has this digest in the repository is kept, or when it goes.
    pub(crate) async fn explain_one(
        &self,
        repository: &RepoName,
        digest: &Digest,
    ) -> Result<wire::ExplainPage> {
        let question = Explain::One {
            repository: repository.clone(),
            digest: *digest,
        };
        let page = self.metadata.explain(question).await?;
        if page.items.is_empty() {
            return Err(RegistryError::BlobUnknown {
                repository: repository.clone(),
                digest: *digest,
            });
        }
        Ok(wire::ExplainPage {
            tags: Vec::new(),
            items: page.items.iter().map(item).collect(),
            next: None,
        })
    }

    pub(crate) async fn trash(
        &self,
        repository: &RepoName,
        after: TrashCursor,
        limit: u32,
    ) -> Result<wire::TrashPage> {
        let mut page = wire::TrashPage {
            manifests: Vec::new(),
            tags: Vec::new(),
            next: None,
        };
        let mut position = (0, 0);
        match after {
            TrashCursor::Tags(after) => {
                let deleted = self.metadata.list_deleted_tags(repository, after, limit).await?;
                page.tags = deleted.tags.into_iter().map(trashed_tag).collect();
                if let Some(next) = deleted.next {
                    page.next = Some(TrashCursor::Tags(next).to_string());
                    return Ok(page);
                }
            }
            TrashCursor::Manifests(after) => position = after,
        }
        let trash = self.metadata.list_trash(repository, position, limit).await?;
        page.manifests = trash.manifests.into_iter().map(trashed_manifest).collect();
        page.next = trash.next.map(|next| TrashCursor::Manifests(next).to_string());
        Ok(page)
    }

    pub(crate) async fn undelete(self: &Arc<Self>, undelete: Undelete) -> Result<wire::Undeleted> {
        self.require_writable(&undelete.repository)?;
        let mut undelete = undelete;
        // An immutable tag is set where it is missing, never moved.
        undelete.force &= self.policies.immutable_patterns(&undelete.repository).is_empty();
        let registry = Arc::clone(self);
        tokio::spawn(async move {
            let repository = undelete.repository.clone();
            let what = match (&undelete.tag, &undelete.digest) {
                (Some(tag), _) => format!("tag {tag}"),
                (None, Some(digest)) => format!("manifest {digest}"),
                (None, None) => "nothing".to_owned(),
            };
            let outcome = registry.metadata.undelete(undelete).await?;
            match outcome {
                UndeleteOutcome::Restored { manifests, tags } => {
                    for digest in &manifests {
                        registry.caches.manifests.changed(&repository, digest);
                    }
                    for tag in &tags {
                        registry.caches.tags.changed(&repository, tag);
                    }
                    Ok(wire::Undeleted { manifests, tags })
                }
                UndeleteOutcome::Unknown => Err(RegistryError::NotInTrash { repository, what }),
                UndeleteOutcome::Taken { tag, digest } => Err(RegistryError::TagTaken {
                    repository,
                    tag,
                    digest,
                }),
            }
        })
        .await?
    }
}

fn item(explained: &Explained) -> wire::Explained {
    let verdict = &explained.verdict;
    let until = match verdict.fate {
        Fate::KeepUntil(at) => Some(at),
        Fate::Keep => None,
        Fate::Remove => explained.review_at,
    };
    wire::Explained {
        kind: match explained.kind {
            Kind::Manifest => wire::Kind::Manifest,
            Kind::Blob => wire::Kind::Blob,
        },
        repository: explained.repository.clone(),
        digest: explained.digest,
        size_bytes: explained.size,
        deleted: explained.deleted,
        fate: match verdict.fate {
            Fate::Keep => wire::Fate::Keep,
            Fate::KeepUntil(_) => wire::Fate::KeepUntil,
            Fate::Remove => wire::Fate::Remove,
        },
        reason: verdict.reason.as_ref().map(|reason| reason.word().to_owned()),
        by: verdict.reason.as_ref().and_then(Reason::by),
        until: until.and_then(rfc3339),
        says: sentence(explained),
    }
}

fn sentence(explained: &Explained) -> String {
    let at = |micros: Option<i64>| {
        micros
            .and_then(rfc3339)
            .unwrap_or_else(|| "its next review".to_owned())
    };
    let because = match &explained.verdict.reason {
        None => "nothing refers to it".to_owned(),
        Some(Reason::Tag(tag)) => format!("tag {tag} names it"),
        Some(Reason::Index(digest)) => format!("index {digest} lists it"),
        Some(Reason::Subject(digest)) => format!("it belongs to {digest}"),
        Some(Reason::Manifest(digest)) => format!("manifest {digest} refers to it"),
        Some(Reason::CacheRecord(key)) => format!("build cache record {key} needs it"),
        Some(Reason::Build) => "a running build needs it".to_owned(),
        Some(Reason::Trashed) => "it is in the trash and can be restored".to_owned(),
        Some(Reason::Pushed) => "it was pushed lately".to_owned(),
        Some(Reason::Untagged) => "it lost its tag lately".to_owned(),
        Some(Reason::Pulled) => "it was pulled lately".to_owned(),
    };
    match explained.verdict.fate {
        Fate::Keep => format!("kept: {because}"),
        Fate::KeepUntil(until) => format!("kept until {}: {because}", at(Some(until))),
        Fate::Remove => format!("removed after {}: {because}", at(explained.review_at)),
    }
}

fn trashed_manifest(manifest: TrashedManifest) -> wire::TrashedManifest {
    wire::TrashedManifest {
        digest: manifest.digest,
        media_type: manifest.media_type,
        size_bytes: manifest.size,
        deleted_at: rfc3339(manifest.deleted_at).unwrap_or_default(),
        deleted_by: manifest.deleted_by,
        until: manifest.until.and_then(rfc3339),
    }
}

fn trashed_tag(tag: TrashedTag) -> wire::TrashedTag {
    wire::TrashedTag {
        tag: tag.tag,
        digest: tag.digest,
        deleted_at: rfc3339(tag.deleted_at).unwrap_or_default(),
        deleted_by: tag.deleted_by,
        until: tag.until.and_then(rfc3339),
    }
}

/// Whole seconds: nobody waits for less.
fn rfc3339(micros: i64) -> Option<String> {
    let at = OffsetDateTime::from_unix_timestamp(micros.div_euclid(1_000_000)).ok()?;
    at.format(&Rfc3339).ok()
}
