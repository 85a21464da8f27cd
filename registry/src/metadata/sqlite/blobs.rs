//! Blobs and their links to repositories.

use async_trait::async_trait;
use oci::{Digest, RepoName};
use sqlx::sqlite::SqliteConnection;

use super::rows::{During, digest as read_digest, ensure_repository, repository, size, stored_size};
use super::uploads::doom;
use super::writer::Durability::{Async, Durable};
use super::{Sqlite, now};
use crate::metadata::{Blobs, CommitBlob, CommitOutcome, DeleteOutcome, Result, StoredBlob};
use crate::storage::ObjectName;

/// `blobs.state` of a blob whose object is as it should be.
const LIVE: i64 = 0;

#[async_trait]
impl Blobs for Sqlite {
    async fn commit_blob(&self, commit: CommitBlob) -> Result<CommitOutcome> {
        let review_delay = self.times.review_delay;
        self.writer
            .run(Durable, move |connection| {
                Box::pin(commit_blob(connection, commit, review_delay))
            })
            .await
    }

    async fn find_blob(&self, repository: &RepoName, digest: &Digest) -> Result<Option<StoredBlob>> {
        let found: Option<(i64, String, i64, i64, Option<i64>)> = sqlx::query_as(
            "SELECT b.size, b.storage_key, l.repository_id, l.blob_id, l.review_at
             FROM repositories r
             JOIN blobs b ON b.digest = $2 AND b.state = 0
             JOIN repository_blobs l ON l.repository_id = r.id AND l.blob_id = b.id AND l.hidden = 0
             WHERE r.name = $1 AND r.deleted_at IS NULL",
        )
        .bind(repository.as_str())
        .bind(digest.to_bytes())
        .fetch_optional(&self.readers)
        .await
        .during("finding a blob")?;
        let Some((stored, key, repository_id, blob_id, review_at)) = found else {
            return Ok(None);
        };
        // Whoever was told that a blob is here can rely on it for half the delay.
        let soon = now() + self.times.review_delay / 2;
        if review_at.is_some_and(|at| at < soon) && !self.put_off_review(repository_id, blob_id).await? {
            return Ok(None);
        }
        Ok(Some(StoredBlob {
            size: size(stored),
            key: ObjectName::new(key),
        }))
    }

    async fn mount_blob(&self, target: &RepoName, source: &RepoName, digest: &Digest) -> Result<bool> {
        let (target, source, digest) = (target.clone(), source.clone(), *digest);
        let review_delay = self.times.review_delay;
        self.writer
            .run(Durable, move |connection| {
                Box::pin(async move {
                    let blob: Option<(i64, i64)> = sqlx::query_as(
                        "SELECT b.id, b.size FROM repositories r
                         JOIN blobs b ON b.digest = $2 AND b.state = 0
                         JOIN repository_blobs l
                             ON l.repository_id = r.id AND l.blob_id = b.id AND l.hidden = 0
                         WHERE r.name = $1 AND r.deleted_at IS NULL",
                    )
                    .bind(source.as_str())
                    .bind(digest.to_bytes())
                    .fetch_optional(&mut *connection)
                    .await
                    .during("finding a blob to mount")?;
                    let Some((blob_id, size)) = blob else {
                        return Ok(false);
                    };
                    let target = ensure_repository(connection, &target).await?;
                    link(connection, target, blob_id, size, "mounted", review_delay).await?;
                    Ok(true)
                })
            })
            .await
    }

    async fn repositories_of(&self, digest: &Digest, limit: u32) -> Result<Vec<RepoName>> {
        let names: Vec<String> = sqlx::query_scalar(
            "SELECT r.name FROM blobs b
             JOIN repository_blobs l ON l.blob_id = b.id AND l.hidden = 0
             JOIN repositories r ON r.id = l.repository_id AND r.deleted_at IS NULL
             WHERE b.digest = $1 AND b.state = 0 LIMIT $2",
        )
        .bind(digest.to_bytes())
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .during("finding a blob's repositories")?;
        names.iter().map(|name| repository(name)).collect()
    }

    async fn hide_blob(&self, repository: &RepoName, digest: &Digest) -> Result<DeleteOutcome> {
        let (repository, digest) = (repository.clone(), *digest);
        self.writer
            .run(Durable, move |connection| {
                Box::pin(hide_blob(connection, repository, digest))
            })
            .await
    }
}

impl Sqlite {
    /// False: the link went meanwhile.
    async fn put_off_review(&self, repository_id: i64, blob_id: i64) -> Result<bool> {
        let review_at = now() + self.times.review_delay;
        self.writer
            .run(Async, move |connection| {
                Box::pin(async move {
                    let updated = sqlx::query(
                        "UPDATE repository_blobs
                         SET review_at = CASE WHEN review_at < $3 THEN $3 ELSE review_at END
                         WHERE repository_id = $1 AND blob_id = $2 AND hidden = 0",
                    )
                    .bind(repository_id)
                    .bind(blob_id)
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

/// The transaction that makes a blob exist (decisions/registry.md, section 2, "T").
async fn commit_blob(
    connection: &mut SqliteConnection,
    commit: CommitBlob,
    review_delay: i64,
) -> Result<CommitOutcome> {
    let found: (bool, Option<i64>, Option<i64>, Option<String>, Option<i64>) = sqlx::query_as(
        "SELECT EXISTS (SELECT 1 FROM uploads WHERE id = $1 AND epoch = $2),
             (SELECT id FROM repositories WHERE name = $3 AND deleted_at IS NULL), b.id, b.storage_key, b.state
         FROM (SELECT 1) LEFT JOIN blobs b ON b.digest = $4",
    )
    .bind(commit.upload.as_bytes())
    .bind(commit.epoch)
    .bind(commit.repository.as_str())
    .bind(commit.digest.to_bytes())
    .fetch_one(&mut *connection)
    .await
    .during("finding what a blob needs")?;
    let (session, repository, blob, stored_key, state) = found;
    let live = state == Some(LIVE);
    if commit.key.is_none() && !live {
        return Ok(CommitOutcome::NotStored);
    }
    // Against expiry, cancel and another writer: whoever deletes the row goes on.
    if !session {
        return Ok(CommitOutcome::UploadUnknown);
    }
    let now = now();
    let repository = match repository {
        Some(id) => id,
        None => ensure_repository(connection, &commit.repository).await?,
    };
    match (blob, &commit.key) {
        (None, Some(own)) => {
            return insert_blob(connection, &commit, own, repository, now, now + review_delay).await;
        }
        (Some(_), Some(own)) if live => doom(connection, own.as_str(), now).await?,
        // A push heals a blob whose object was found corrupt.
        (Some(id), Some(own)) => heal(connection, id, own, stored_key.as_deref(), now).await?,
        (_, None) => {}
    }
    // Only a link is made: what the store has already kept under a name of the upload's own is not needed.
    sqlx::query(
        "INSERT INTO doomed (key, due_at) SELECT key, $2 FROM uploads
             WHERE id = $1 AND $3 AND key IS NOT NULL AND notes IS NOT NULL;
         DELETE FROM uploads WHERE id = $1",
    )
    .bind(commit.upload.as_bytes())
    .bind(now)
    .bind(commit.key.is_none())
    .execute(&mut *connection)
    .await
    .during("ending an upload")?;
    if let Some(blob) = blob {
        link(
            connection,
            repository,
            blob,
            stored_size(commit.size),
            "pushed",
            review_delay,
        )
        .await?;
    }
    Ok(CommitOutcome::Committed)
}

/// The common case in one trip: the session ends, its object is the blob, the repository has it.
async fn insert_blob(
    connection: &mut SqliteConnection,
    commit: &CommitBlob,
    key: &ObjectName,
    repository: i64,
    now: i64,
    review_at: i64,
) -> Result<CommitOutcome> {
    sqlx::query(
        "DELETE FROM uploads WHERE id = $1;
         INSERT INTO blobs (digest, size, storage_key, created_at, verified_at) VALUES ($2, $3, $4, $5, $5);
         INSERT INTO repository_blobs (repository_id, blob_id, linked_at, review_at, review_reason)
             VALUES ($6, last_insert_rowid(), $5, $7, 'pushed');
         INSERT INTO repository_usage (repository_id, shard, bytes) VALUES ($6, 0, $3)
             ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes",
    )
    .bind(commit.upload.as_bytes())
    .bind(commit.digest.to_bytes())
    .bind(stored_size(commit.size))
    .bind(key.as_str())
    .bind(now)
    .bind(repository)
    .bind(review_at)
    .execute(connection)
    .await
    .during("inserting a blob")?;
    Ok(CommitOutcome::Committed)
}

async fn heal(
    connection: &mut SqliteConnection,
    blob: i64,
    own: &ObjectName,
    corrupt: Option<&str>,
    now: i64,
) -> Result<()> {
    sqlx::query("UPDATE blobs SET storage_key = $2, state = 0, verified_at = $3 WHERE id = $1")
        .bind(blob)
        .bind(own.as_str())
        .bind(now)
        .execute(&mut *connection)
        .await
        .during("healing a blob")?;
    match corrupt {
        Some(corrupt) => doom(connection, corrupt, now).await,
        None => Ok(()),
    }
}

/// Makes a blob visible in a repository, charging it where it is new there.
async fn link(
    connection: &mut SqliteConnection,
    repository_id: i64,
    blob_id: i64,
    size: i64,
    reason: &'static str,
    review_delay: i64,
) -> Result<()> {
    let now = now();
    let inserted = sqlx::query(
        "INSERT INTO repository_blobs (repository_id, blob_id, linked_at, review_at, review_reason)
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
    )
    .bind(repository_id)
    .bind(blob_id)
    .bind(now)
    .bind(now + review_delay)
    .bind(reason)
    .execute(&mut *connection)
    .await
    .during("linking a blob")?;
    if inserted.rows_affected() == 1 {
        return charge(connection, repository_id, size).await;
    }
    sqlx::query(
        "UPDATE repository_blobs SET hidden = 0, review_at = $3, review_reason = $4
         WHERE repository_id = $1 AND blob_id = $2",
    )
    .bind(repository_id)
    .bind(blob_id)
    .bind(now + review_delay)
    .bind(reason)
    .execute(connection)
    .await
    .during("linking a blob again")?;
    Ok(())
}

/// Adds to a repository's usage.
pub(super) async fn charge(connection: &mut SqliteConnection, repository_id: i64, bytes: i64) -> Result<()> {
    sqlx::query(
        "INSERT INTO repository_usage (repository_id, shard, bytes) VALUES ($1, 0, $2)
         ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes",
    )
    .bind(repository_id)
    .bind(bytes)
    .execute(connection)
    .await
    .during("charging a repository")?;
    Ok(())
}

async fn hide_blob(
    connection: &mut SqliteConnection,
    repository: RepoName,
    digest: Digest,
) -> Result<DeleteOutcome> {
    let link: Option<(i64, i64)> = sqlx::query_as(
        "SELECT l.repository_id, l.blob_id FROM repositories r
         JOIN blobs b ON b.digest = $2
         JOIN repository_blobs l ON l.repository_id = r.id AND l.blob_id = b.id AND l.hidden = 0
         WHERE r.name = $1 AND r.deleted_at IS NULL",
    )
    .bind(repository.as_str())
    .bind(digest.to_bytes())
    .fetch_optional(&mut *connection)
    .await
    .during("finding a blob to delete")?;
    let Some((repository_id, blob_id)) = link else {
        return Ok(DeleteOutcome::Unknown);
    };
    let user: Option<Vec<u8>> = sqlx::query_scalar(
        "SELECT m.digest FROM manifest_blobs mb JOIN manifests m ON m.id = mb.manifest_id
         WHERE mb.repository_id = $1 AND mb.blob_id = $2 AND m.deleted_at IS NULL
         UNION ALL
         SELECT m.digest FROM manifest_children c JOIN manifests m ON m.id = c.parent_id
         WHERE c.repository_id = $1 AND c.child_digest = $3 AND m.deleted_at IS NULL LIMIT 1",
    )
    .bind(repository_id)
    .bind(blob_id)
    .bind(digest.to_bytes())
    .fetch_optional(&mut *connection)
    .await
    .during("finding a blob's manifests")?;
    if let Some(user) = user {
        return Ok(DeleteOutcome::ReferencedBy(read_digest(&user)?));
    }
    sqlx::query(
        "UPDATE repository_blobs SET hidden = 1, review_at = $3, review_reason = 'deleted'
         WHERE repository_id = $1 AND blob_id = $2",
    )
    .bind(repository_id)
    .bind(blob_id)
    .bind(now())
    .execute(connection)
    .await
    .during("hiding a blob")?;
    Ok(DeleteOutcome::Deleted)
}
