//! Manifests: storing and finding.
//!
//! Locks are taken in the order repository, manifest, tag, blob, links by ascending blob.

use async_trait::async_trait;
use bytes::Bytes;
use oci::{Digest, RepoName, Tag};
use sqlx::postgres::PgConnection;

use super::Durability::{Async, Durable};
use super::blobs::charge;
use super::resolver::FoundManifest;
use super::rows::{
    During, digest as read_digest, digest_list, ensure_repository, lock_repository, stored_size,
};
use super::transaction::commit;
use super::{Postgres, links, outbox, tags, trash};
use crate::config::TagPattern;
use crate::metadata::values::Times;
use crate::metadata::{Change, DeleteOutcome, Manifests, PutManifest, PutOutcome, Result, StoredManifest};

#[async_trait]
impl Manifests for Postgres {
    async fn put_manifest(&self, put: PutManifest) -> Result<PutOutcome> {
        self.retrying(|| async {
            let mut tx = self.begin(Durable).await?;
            let outcome = put_manifest(&mut tx, &put, self.times).await?;
            commit(tx).await?;
            Ok(outcome)
        })
        .await
    }

    async fn resolve_tag(&self, repository: &RepoName, tag: &Tag) -> Result<Option<Digest>> {
        let found = self.resolver.tag(repository, tag).await?;
        found.map(|found| read_digest(&found.digest)).transpose()
    }

    async fn find_manifest(&self, repository: &RepoName, digest: &Digest) -> Result<Option<StoredManifest>> {
        let found = self.resolver.manifest(repository, digest).await?;
        self.manifest_of(found).await
    }

    async fn find_tagged(&self, repository: &RepoName, tag: &Tag) -> Result<Option<StoredManifest>> {
        let found = self.resolver.tag(repository, tag).await?;
        self.manifest_of(found).await
    }

    async fn delete_manifest(
        &self,
        repository: &RepoName,
        digest: &Digest,
        immutable: &[TagPattern],
        actor: &str,
    ) -> Result<DeleteOutcome> {
        self.retrying(|| async {
            let mut tx = self.begin(Durable).await?;
            let outcome = trash::put_in(&mut tx, repository, digest, immutable, actor, self.times).await?;
            commit(tx).await?;
            Ok(outcome)
        })
        .await
    }

    async fn delete_tag(&self, repository: &RepoName, tag: &Tag, actor: &str) -> Result<bool> {
        self.retrying(|| async {
            let mut tx = self.begin(Durable).await?;
            let deleted = tags::delete(&mut tx, repository, tag, actor, self.times).await?;
            commit(tx).await?;
            Ok(deleted)
        })
        .await
    }
}

impl Postgres {
    /// A manifest's bytes, which are kept in memory: that it is there, and which version, the database has just said.
    async fn manifest_of(&self, found: Option<FoundManifest>) -> Result<Option<StoredManifest>> {
        let Some(found) = found else { return Ok(None) };
        // Whoever was told that a manifest is here can rely on it for half the delay.
        if found.review_soon && !self.put_off_manifest_review(found.id).await? {
            return Ok(None);
        }
        let version = (found.id, found.pushed_at);
        if let Some(manifest) = self.manifests.get(&version) {
            return Ok(Some(manifest));
        }
        let row: Option<(i64, String, Vec<u8>)> = self
            .retrying(|| async {
                sqlx::query_as(
                    "SELECT pushed_at, media_type, payload FROM manifests WHERE id = $1 AND deleted_at IS NULL",
                )
                .bind(found.id)
                .fetch_optional(&self.pool())
                .await
                .during("reading a manifest")
            })
            .await?;
        // None: it was deleted just now.
        let Some((pushed_at, media_type, payload)) = row else {
            return Ok(None);
        };
        let manifest = StoredManifest {
            digest: read_digest(&found.digest)?,
            media_type,
            bytes: Bytes::from(payload),
        };
        self.manifests.insert((found.id, pushed_at), manifest.clone());
        Ok(Some(manifest))
    }

    /// False: the manifest went meanwhile.
    async fn put_off_manifest_review(&self, id: i64) -> Result<bool> {
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            let updated = sqlx::query(
                "UPDATE manifests
                 SET review_at = CASE WHEN review_at IS NULL THEN NULL ELSE greatest(review_at, now_micros() + $2) END
                 WHERE id = $1 AND deleted_at IS NULL",
            )
            .bind(id)
            .bind(self.times.review_delay)
            .execute(&mut *tx)
            .await
            .during("putting off a review")?;
            commit(tx).await?;
            Ok(updated.rows_affected() == 1)
        })
        .await
    }
}

async fn put_manifest(connection: &mut PgConnection, put: &PutManifest, times: Times) -> Result<PutOutcome> {
    let known = lock_repository(connection, &put.repository).await?;
    if let Some(repository) = known {
        // Children too: of a BuildKit cache index they are blobs.
        links::hold(connection, repository, put.blobs.iter().chain(&put.children)).await?;
    }
    let blobs = match known {
        _ if put.blobs.is_empty() || !put.blobs_required => Vec::new(),
        Some(repository) => missing(connection, MISSING_BLOBS, repository, &put.blobs).await?,
        None => put.blobs.clone(),
    };
    let manifests = match known {
        _ if put.children.is_empty() || !put.children_required => Vec::new(),
        Some(repository) => missing(connection, MISSING_CHILDREN, repository, &put.children).await?,
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
        None => make_repository(connection, &put.repository).await?,
    };
    let existing: Option<(i64, bool)> = sqlx::query_as(
        "SELECT id, deleted_at IS NOT NULL FROM manifests WHERE repository_id = $1 AND digest = $2",
    )
    .bind(repository)
    .bind(put.digest.to_bytes())
    .fetch_optional(&mut *connection)
    .await
    .during("finding a manifest")?;
    let (manifest, added) = match existing {
        Some((id, trashed)) => {
            renew(connection, id, put, times).await?;
            (id, trashed)
        }
        None => (insert(connection, repository, put, times).await?, true),
    };
    let set = tags::Set {
        repository,
        manifest,
        digest: &put.digest,
        tags: &put.tags,
        actor: &put.actor,
    };
    set.run(connection, times).await?;
    insert_references(connection, repository, manifest, put).await?;
    outbox::tell(connection, repository, &Change::pushed(put)).await?;
    if added {
        count(connection, repository, 1).await?;
    }
    if existing.is_none() {
        charge(connection, repository, stored_size(put.bytes.len() as u64)).await?;
    }
    Ok(PutOutcome::Stored)
}

async fn make_repository(connection: &mut PgConnection, repository: &RepoName) -> Result<i64> {
    let made = ensure_repository(connection, repository).await?;
    Ok(lock_repository(connection, repository).await?.unwrap_or(made))
}

/// Lateral joins, here and below: of `NOT EXISTS` the planner may make a walk through the whole repository.
pub(super) const MISSING_BLOBS: &str = "SELECT q.digest FROM unnest($2::bytea[]) AS q (digest)
     LEFT JOIN LATERAL (
         SELECT true AS here FROM blobs b CROSS JOIN LATERAL (
             SELECT 1 FROM repository_blobs
             WHERE repository_id = $1 AND blob_id = b.id AND hidden = 0 LIMIT 1) l
         WHERE b.digest = q.digest AND b.state = 0 LIMIT 1) b ON true
     WHERE b.here IS NULL";

/// BuildKit's cache indexes list layers: a child may be a blob as well.
pub(super) const MISSING_CHILDREN: &str = "SELECT q.digest FROM unnest($2::bytea[]) AS q (digest)
     LEFT JOIN LATERAL (
         SELECT true AS here FROM manifests
         WHERE repository_id = $1 AND digest = q.digest AND deleted_at IS NULL LIMIT 1) m ON true
     LEFT JOIN LATERAL (
         SELECT true AS here FROM blobs b CROSS JOIN LATERAL (
             SELECT 1 FROM repository_blobs
             WHERE repository_id = $1 AND blob_id = b.id AND hidden = 0 LIMIT 1) l
         WHERE b.digest = q.digest AND b.state = 0 LIMIT 1) b ON true
     WHERE m.here IS NULL AND b.here IS NULL";

/// The foreign key locks the links: in their order.
pub(super) const HOLD_BLOBS: &str = "INSERT INTO manifest_blobs (repository_id, manifest_id, blob_id)
     SELECT $1, $2, b.id FROM unnest($3::bytea[]) AS q (digest)
     JOIN blobs b ON b.digest = q.digest
     CROSS JOIN LATERAL (
         SELECT 1 FROM repository_blobs
         WHERE repository_id = $1 AND blob_id = b.id AND hidden = 0 LIMIT 1) l
     ORDER BY b.id ON CONFLICT DO NOTHING";

/// Those of `wanted` that a query finds missing.
pub(super) async fn missing(
    connection: &mut PgConnection,
    sql: &'static str,
    repository: i64,
    wanted: &[Digest],
) -> Result<Vec<Digest>> {
    let missing: Vec<Vec<u8>> = sqlx::query_scalar(sql)
        .bind(repository)
        .bind(digest_list(wanted))
        .fetch_all(connection)
        .await
        .during("checking references")?;
    missing.iter().map(|stored| read_digest(stored)).collect()
}

async fn insert(
    connection: &mut PgConnection,
    repository: i64,
    put: &PutManifest,
    times: Times,
) -> Result<i64> {
    sqlx::query_scalar(
        "INSERT INTO manifests
             (repository_id, digest, media_type, artifact_type, subject, size, descriptor, pushed_at, pushed_by,
              review_at, review_reason, payload)
         VALUES ($1, $2, $3, $4, $5, $6, $7, now_micros(), $8, now_micros() + $9, 'pushed', $10) RETURNING id",
    )
    .bind(repository)
    .bind(put.digest.to_bytes())
    .bind(put.media_type.as_str())
    .bind(put.artifact_type.as_str())
    .bind(put.subject.map(|subject| subject.to_bytes()))
    .bind(stored_size(put.bytes.len() as u64))
    .bind(put.descriptor.as_deref())
    .bind(put.actor.as_str())
    .bind(times.undelete_window)
    .bind(put.bytes.as_ref())
    .fetch_one(connection)
    .await
    .during("inserting a manifest")
}

/// A manifest that is pushed again: out of the trash, its review later.
async fn renew(connection: &mut PgConnection, id: i64, put: &PutManifest, times: Times) -> Result<()> {
    // Strictly later than before, since the time is the version.
    sqlx::query(
        "UPDATE manifests SET media_type = $2, artifact_type = $3, descriptor = $4,
             pushed_at = greatest(now_micros(), pushed_at + 1), pushed_by = $5,
             review_at = now_micros() + $6, review_reason = 'pushed', deleted_at = NULL, deleted_by = NULL
         WHERE id = $1",
    )
    .bind(id)
    .bind(put.media_type.as_str())
    .bind(put.artifact_type.as_str())
    .bind(put.descriptor.as_deref())
    .bind(put.actor.as_str())
    .bind(times.undelete_window)
    .execute(connection)
    .await
    .during("renewing a manifest")?;
    Ok(())
}

/// Holds what the manifest refers to. Of a sparse manifest only what is here; the rest when it is pushed again.
async fn insert_references(
    connection: &mut PgConnection,
    repository: i64,
    manifest: i64,
    put: &PutManifest,
) -> Result<()> {
    if !put.children.is_empty() {
        sqlx::query(
            "INSERT INTO manifest_children (repository_id, parent_id, child_digest)
             SELECT $1, $2, q.digest FROM unnest($3::bytea[]) AS q (digest) ON CONFLICT DO NOTHING",
        )
        .bind(repository)
        .bind(manifest)
        .bind(digest_list(&put.children))
        .execute(&mut *connection)
        .await
        .during("inserting an index's manifests")?;
    }
    let held = digest_list(put.blobs.iter().chain(&put.children));
    if held.is_empty() {
        return Ok(());
    }
    sqlx::query(HOLD_BLOBS)
        .bind(repository)
        .bind(manifest)
        .bind(held)
        .execute(&mut *connection)
        .await
        .during("inserting a manifest's blobs")?;
    if !put.blobs_required {
        note_missing_blobs(connection, repository, manifest, &put.blobs).await?;
    }
    Ok(())
}

/// Blobs that come after their manifest are found among its children when they are reviewed.
async fn note_missing_blobs(
    connection: &mut PgConnection,
    repository: i64,
    manifest: i64,
    blobs: &[Digest],
) -> Result<()> {
    sqlx::query(
        "INSERT INTO manifest_children (repository_id, parent_id, child_digest)
         SELECT $1, $2, q.digest FROM unnest($3::bytea[]) AS q (digest)
         WHERE NOT EXISTS (SELECT 1 FROM blobs b JOIN manifest_blobs x ON x.manifest_id = $2 AND x.blob_id = b.id
             WHERE b.digest = q.digest)
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

pub(super) async fn count(connection: &mut PgConnection, repository: i64, more: i64) -> Result<()> {
    sqlx::query("UPDATE repositories SET manifest_count = manifest_count + $2 WHERE id = $1")
        .bind(repository)
        .bind(more)
        .execute(connection)
        .await
        .during("counting manifests")?;
    Ok(())
}
