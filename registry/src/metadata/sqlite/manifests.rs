//! Manifests: storing and finding.

use async_trait::async_trait;
use bytes::Bytes;
use oci::{Digest, RepoName, Tag};
use sqlx::sqlite::SqliteConnection;

use super::blobs::charge;
use super::rows::{
    During, digest as read_digest, digest_list, ensure_repository, listed_digest, repository_id, stored_size,
};
use super::writer::Durability::{Async, Durable};
use super::{Sqlite, Times, now, tags, trash};
use crate::config::TagPattern;
use crate::metadata::{Change, DeleteOutcome, Manifests, PutManifest, PutOutcome, Result, StoredManifest};

#[async_trait]
impl Manifests for Sqlite {
    async fn put_manifest(&self, put: PutManifest) -> Result<PutOutcome> {
        let times = self.times;
        self.writer
            .run(Durable, move |connection| {
                Box::pin(put_manifest(connection, put, times))
            })
            .await
    }

    async fn resolve_tag(&self, repository: &RepoName, tag: &Tag) -> Result<Option<Digest>> {
        let stored: Option<Vec<u8>> = sqlx::query_scalar(
            "SELECT m.digest FROM repositories r
             JOIN tags t ON t.repository_id = r.id AND t.name = $2
             JOIN manifests m ON m.id = t.manifest_id
             WHERE r.name = $1 AND r.deleted_at IS NULL",
        )
        .bind(repository.as_str())
        .bind(tag.as_str())
        .fetch_optional(&self.readers)
        .await
        .during("resolving a tag")?;
        stored.map(|stored| read_digest(&stored)).transpose()
    }

    async fn find_manifest(&self, repository: &RepoName, digest: &Digest) -> Result<Option<StoredManifest>> {
        let found: Option<(i64, Option<i64>, String, Vec<u8>)> = sqlx::query_as(
            "SELECT m.id, m.review_at, m.media_type, m.payload FROM repositories r
             JOIN manifests m ON m.repository_id = r.id AND m.digest = $2
             WHERE r.name = $1 AND r.deleted_at IS NULL AND m.deleted_at IS NULL",
        )
        .bind(repository.as_str())
        .bind(digest.to_bytes())
        .fetch_optional(&self.readers)
        .await
        .during("finding a manifest")?;
        let Some((id, review_at, media_type, payload)) = found else {
            return Ok(None);
        };
        // Whoever was told that a manifest is here can rely on it for half the delay.
        let soon = now() + self.times.review_delay / 2;
        if review_at.is_some_and(|at| at < soon) && !self.put_off_manifest_review(id).await? {
            return Ok(None);
        }
        Ok(Some(StoredManifest {
            digest: *digest,
            media_type,
            bytes: Bytes::from(payload),
        }))
    }

    async fn delete_manifest(
        &self,
        repository: &RepoName,
        digest: &Digest,
        immutable: &[TagPattern],
        actor: &str,
    ) -> Result<DeleteOutcome> {
        let immutable = immutable.to_vec();
        let (repository, digest, actor) = (repository.clone(), *digest, actor.to_owned());
        let times = self.times;
        self.writer
            .run(Durable, move |connection| {
                Box::pin(async move {
                    trash::put_in(connection, &repository, &digest, &immutable, &actor, times).await
                })
            })
            .await
    }

    async fn delete_tag(&self, repository: &RepoName, tag: &Tag, actor: &str) -> Result<bool> {
        let (repository, tag, actor) = (repository.clone(), tag.clone(), actor.to_owned());
        let times = self.times;
        self.writer
            .run(Durable, move |connection| {
                Box::pin(async move { tags::delete(connection, &repository, &tag, &actor, times).await })
            })
            .await
    }
}

/// `$1` the repository, `$2` the manifest, `$3` digests of blobs and `$4` of manifests that it refers to, `$5` its own,
/// `$6` the change, `$7` when.
pub(super) const REFER: &str = "INSERT INTO manifest_blobs (repository_id, manifest_id, blob_id)
         SELECT $1, $2, b.id FROM json_each($3) j JOIN blobs b ON b.digest = unhex(j.value)
         JOIN repository_blobs l ON l.repository_id = $1 AND l.blob_id = b.id AND l.hidden = 0
         WHERE true ON CONFLICT DO NOTHING;
     INSERT INTO manifest_children (repository_id, parent_id, child_digest)
         SELECT $1, $2, unhex(j.value) FROM json_each($4) j WHERE true ON CONFLICT DO NOTHING;
     INSERT INTO outbox (kind, repository, manifest, payload, at)
         SELECT 'push', name, $5, $6, $7 FROM repositories WHERE id = $1";

impl Sqlite {
    /// False: the manifest went meanwhile.
    async fn put_off_manifest_review(&self, id: i64) -> Result<bool> {
        let review_at = now() + self.times.review_delay;
        self.writer
            .run(Async, move |connection| {
                Box::pin(async move {
                    let updated = sqlx::query(
                        "UPDATE manifests SET review_at = CASE WHEN review_at < $2 THEN $2 ELSE review_at END
                         WHERE id = $1 AND deleted_at IS NULL",
                    )
                    .bind(id)
                    .bind(review_at)
                    .execute(connection)
                    .await
                    .during("putting off a review")?;
                    Ok(updated.rows_affected() == 1)
                })
            })
            .await
    }
}

async fn put_manifest(
    connection: &mut SqliteConnection,
    put: PutManifest,
    times: Times,
) -> Result<PutOutcome> {
    let known = repository_id(connection, &put.repository).await?;
    let blobs = match known {
        _ if put.blobs.is_empty() || !put.blobs_required => Vec::new(),
        Some(repository) => missing_blobs(connection, repository, &put.blobs).await?,
        None => put.blobs.clone(),
    };
    let manifests = match known {
        _ if put.children.is_empty() || !put.children_required => Vec::new(),
        Some(repository) => missing_children(connection, repository, &put.children).await?,
        None => put.children.clone(),
    };
    if !blobs.is_empty() || !manifests.is_empty() {
        return Ok(PutOutcome::Missing { blobs, manifests });
    }
    if let Some(repository) = known
        && let Some(tag) = tags::taken(connection, repository, &put.immutable, &put.digest).await?
    {
        return Ok(PutOutcome::Immutable(tag));
    }
    let repository = match known {
        Some(id) => id,
        None => ensure_repository(connection, &put.repository).await?,
    };
    let existing: Option<(i64, bool)> = sqlx::query_as(
        "SELECT id, deleted_at IS NOT NULL FROM manifests WHERE repository_id = $1 AND digest = $2",
    )
    .bind(repository)
    .bind(put.digest.to_bytes())
    .fetch_optional(&mut *connection)
    .await
    .during("finding a manifest")?;
    let manifest = match existing {
        Some((id, trashed)) => {
            renew(connection, repository, id, trashed, &put, times).await?;
            id
        }
        None => insert(connection, repository, &put, times).await?,
    };
    for tag in &put.tags {
        tags::set(
            connection,
            repository,
            tag,
            manifest,
            &put.digest,
            &put.actor,
            times,
        )
        .await?;
    }
    Ok(PutOutcome::Stored)
}

async fn missing_blobs(
    connection: &mut SqliteConnection,
    repository: i64,
    blobs: &[Digest],
) -> Result<Vec<Digest>> {
    let missing: Vec<String> = sqlx::query_scalar(
        "SELECT j.value FROM json_each($2) j WHERE NOT EXISTS (
             SELECT 1 FROM blobs b JOIN repository_blobs l
                 ON l.repository_id = $1 AND l.blob_id = b.id AND l.hidden = 0
             WHERE b.digest = unhex(j.value) AND b.state = 0)",
    )
    .bind(repository)
    .bind(digest_list(blobs))
    .fetch_all(connection)
    .await
    .during("checking a manifest's blobs")?;
    missing.iter().map(|hex| listed_digest(hex)).collect()
}

/// BuildKit's cache indexes list layers: a child may be a blob as well.
async fn missing_children(
    connection: &mut SqliteConnection,
    repository: i64,
    children: &[Digest],
) -> Result<Vec<Digest>> {
    let missing: Vec<String> = sqlx::query_scalar(
        "SELECT j.value FROM json_each($2) j WHERE NOT EXISTS (
             SELECT 1 FROM manifests m
             WHERE m.repository_id = $1 AND m.digest = unhex(j.value) AND m.deleted_at IS NULL)
         AND NOT EXISTS (
             SELECT 1 FROM blobs b JOIN repository_blobs l
                 ON l.repository_id = $1 AND l.blob_id = b.id AND l.hidden = 0
             WHERE b.digest = unhex(j.value) AND b.state = 0)",
    )
    .bind(repository)
    .bind(digest_list(children))
    .fetch_all(connection)
    .await
    .during("checking an index's manifests")?;
    missing.iter().map(|hex| listed_digest(hex)).collect()
}

async fn insert(
    connection: &mut SqliteConnection,
    repository: i64,
    put: &PutManifest,
    times: Times,
) -> Result<i64> {
    let (now, size) = (now(), stored_size(put.bytes.len() as u64));
    let id: i64 = sqlx::query_scalar(
        "INSERT INTO manifests
             (repository_id, digest, media_type, artifact_type, subject, size, descriptor, pushed_at, pushed_by,
              review_at, review_reason, payload)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'pushed', $11) RETURNING id",
    )
    .bind(repository)
    .bind(put.digest.to_bytes())
    .bind(put.media_type.as_str())
    .bind(put.artifact_type.as_str())
    .bind(put.subject.map(|subject| subject.to_bytes()))
    .bind(size)
    .bind(put.descriptor.as_deref())
    .bind(now)
    .bind(put.actor.as_str())
    .bind(now + times.undelete_window)
    .bind(put.bytes.as_ref())
    .fetch_one(&mut *connection)
    .await
    .during("inserting a manifest")?;
    sqlx::query("UPDATE repositories SET manifest_count = manifest_count + 1 WHERE id = $1")
        .bind(repository)
        .execute(&mut *connection)
        .await
        .during("counting a manifest")?;
    insert_references(connection, repository, id, put).await?;
    charge(connection, repository, size).await?;
    Ok(id)
}

/// Holds what the manifest refers to, and tells of the push: a statement more in a query that runs anyway. Of a sparse manifest only what is here; the rest when it is pushed again.
async fn insert_references(
    connection: &mut SqliteConnection,
    repository: i64,
    manifest: i64,
    put: &PutManifest,
) -> Result<()> {
    let blobs = [put.blobs.as_slice(), put.children.as_slice()].concat();
    sqlx::query(REFER)
        .bind(repository)
        .bind(manifest)
        .bind(digest_list(&blobs))
        .bind(digest_list(&put.children))
        .bind(put.digest.to_bytes())
        .bind(Change::pushed(put).to_json())
        .bind(now())
        .execute(&mut *connection)
        .await
        .during("inserting a manifest's references")?;
    if !put.blobs_required {
        note_missing_blobs(connection, repository, manifest, &put.blobs).await?;
    }
    Ok(())
}

/// Blobs that come after their manifest are found among its children when they are reviewed.
async fn note_missing_blobs(
    connection: &mut SqliteConnection,
    repository: i64,
    manifest: i64,
    blobs: &[Digest],
) -> Result<()> {
    sqlx::query(
        "INSERT INTO manifest_children (repository_id, parent_id, child_digest)
             SELECT $1, $2, unhex(j.value) FROM json_each($3) j
             WHERE NOT EXISTS (SELECT 1 FROM blobs b JOIN manifest_blobs x ON x.blob_id = b.id
                 WHERE b.digest = unhex(j.value) AND x.manifest_id = $2)
             ON CONFLICT DO NOTHING",
    )
    .bind(repository)
    .bind(manifest)
    .bind(digest_list(blobs))
    .execute(connection)
    .await
    .during("noting a sparse manifest's blobs")?;
    Ok(())
}

/// A manifest that is pushed again: out of the trash, its review later.
async fn renew(
    connection: &mut SqliteConnection,
    repository: i64,
    id: i64,
    trashed: bool,
    put: &PutManifest,
    times: Times,
) -> Result<()> {
    let now = now();
    sqlx::query(
        "UPDATE manifests SET media_type = $2, artifact_type = $3, descriptor = $4, pushed_at = $5, pushed_by = $6,
             review_at = $7, review_reason = 'pushed', deleted_at = NULL, deleted_by = NULL
         WHERE id = $1;
         UPDATE repositories SET manifest_count = manifest_count + $8 WHERE id = $9 AND $8 > 0",
    )
    .bind(id)
    .bind(put.media_type.as_str())
    .bind(put.artifact_type.as_str())
    .bind(put.descriptor.as_deref())
    .bind(now)
    .bind(put.actor.as_str())
    .bind(now + times.undelete_window)
    .bind(i64::from(trashed))
    .bind(repository)
    .execute(&mut *connection)
    .await
    .during("renewing a manifest")?;
    insert_references(connection, repository, id, put).await
}
