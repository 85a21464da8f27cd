//! Blobs and their links to repositories.

use async_trait::async_trait;
use oci::{Digest, RepoName};
use sqlx::postgres::PgConnection;

use super::Durability::{Async, Durable};
use super::Postgres;
use super::resolver::FoundBlob;
use super::rows::{
    During, digest as read_digest, ensure_repository, lock_repository, repository, size, stored_size,
};
use super::transaction::commit;
use super::uploads::doom;
use crate::metadata::{Blobs, CommitBlob, CommitOutcome, DeleteOutcome, Result, StoredBlob};
use crate::storage::ObjectName;

/// `blobs.state` of a blob whose object is as it should be.
const LIVE: i64 = 0;

#[async_trait]
impl Blobs for Postgres {
    async fn commit_blob(&self, commit: CommitBlob) -> Result<CommitOutcome> {
        self.retrying(|| self.try_commit_blob(&commit)).await
    }

    async fn find_blob(&self, repository: &RepoName, digest: &Digest) -> Result<Option<StoredBlob>> {
        let Some(found) = self.resolver.blob(repository, digest).await? else {
            return Ok(None);
        };
        // Whoever was told that a blob is here can rely on it for half the delay.
        if found.review_soon && !self.put_off_review(&found).await? {
            return Ok(None);
        }
        Ok(Some(StoredBlob {
            size: size(found.size),
            key: ObjectName::new(found.key),
        }))
    }

    async fn mount_blob(&self, target: &RepoName, source: &RepoName, digest: &Digest) -> Result<bool> {
        self.retrying(|| async {
            let mut tx = self.begin(Durable).await?;
            // The lock keeps the blob from being collected until it has the new link.
            let blob: Option<(i64, i64)> = sqlx::query_as(
                "SELECT b.id, b.size FROM repositories r
                 JOIN blobs b ON b.digest = $2 AND b.state = 0
                 WHERE r.name = $1 AND r.deleted_at IS NULL AND EXISTS (
                     SELECT 1 FROM repository_blobs
                     WHERE repository_id = r.id AND blob_id = b.id AND hidden = 0)
                 FOR KEY SHARE OF b",
            )
            .bind(source.as_str())
            .bind(digest.to_bytes())
            .fetch_optional(&mut *tx)
            .await
            .during("finding a blob to mount")?;
            let Some((blob_id, size)) = blob else {
                return Ok(false);
            };
            let target = ensure_repository(&mut tx, target).await?;
            link(&mut tx, target, blob_id, size, "mounted", self.times.review_delay).await?;
            commit(tx).await?;
            Ok(true)
        })
        .await
    }

    async fn repositories_of(&self, digest: &Digest, limit: u32) -> Result<Vec<RepoName>> {
        let names: Vec<String> = self
            .retrying(|| async {
                sqlx::query_scalar(REPOSITORIES_OF)
                    .bind(digest.to_bytes())
                    .bind(i64::from(limit))
                    .fetch_all(&self.pool())
                    .await
                    .during("finding a blob's repositories")
            })
            .await?;
        names.iter().map(|name| repository(name)).collect()
    }

    async fn hide_blob(&self, repository: &RepoName, digest: &Digest) -> Result<DeleteOutcome> {
        self.retrying(|| async {
            let mut tx = self.begin(Durable).await?;
            let outcome = hide_blob(&mut tx, repository, digest).await?;
            commit(tx).await?;
            Ok(outcome)
        })
        .await
    }
}

pub(super) const REPOSITORIES_OF: &str = "SELECT r.name FROM blobs b
     JOIN repository_blobs l ON l.blob_id = b.id AND l.hidden = 0
     JOIN repositories r ON r.id = l.repository_id AND r.deleted_at IS NULL
     WHERE b.digest = $1 AND b.state = 0 LIMIT $2";

impl Postgres {
    /// The transaction that makes a blob exist (decisions/registry.md, section 2, "T").
    async fn try_commit_blob(&self, wanted: &CommitBlob) -> Result<CommitOutcome> {
        let mut tx = self.begin(Durable).await?;
        // Against expiry, cancel and another writer: whoever deletes the row goes on.
        // Where only a link is made, what the store has already kept under a name of the upload's own is not needed.
        let ended: i64 = sqlx::query_scalar(
            "WITH gone AS (DELETE FROM uploads WHERE id = $1 AND epoch = $2 RETURNING key, notes),
                 doom AS (INSERT INTO doomed (key, due_at) SELECT key, now_micros() FROM gone
                     WHERE $3 AND key IS NOT NULL AND notes IS NOT NULL)
             SELECT count(*) FROM gone",
        )
        .bind(wanted.upload.as_bytes())
        .bind(wanted.epoch)
        .bind(wanted.key.is_none())
        .fetch_one(&mut *tx)
        .await
        .during("ending an upload")?;
        if ended == 0 {
            return Ok(CommitOutcome::UploadUnknown);
        }
        let Some(blob) = hold_blob(&mut tx, wanted).await? else {
            tx.rollback().await.during("keeping an upload open")?;
            return Ok(CommitOutcome::NotStored);
        };
        let repository = ensure_repository(&mut tx, &wanted.repository).await?;
        let (size, delay) = (stored_size(wanted.size), self.times.review_delay);
        link(&mut tx, repository, blob, size, "pushed", delay).await?;
        commit(tx).await?;
        Ok(CommitOutcome::Committed)
    }

    /// False: the link went meanwhile.
    async fn put_off_review(&self, blob: &FoundBlob) -> Result<bool> {
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            let updated = sqlx::query(
                "UPDATE repository_blobs
                 SET review_at = CASE WHEN review_at IS NULL THEN NULL ELSE greatest(review_at, now_micros() + $3) END
                 WHERE repository_id = $1 AND blob_id = $2 AND hidden = 0",
            )
            .bind(blob.repository_id)
            .bind(blob.blob_id)
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

/// Makes the blob or finds it, so that it stays until the commit. None: there are no bytes to make it of.
async fn hold_blob(connection: &mut PgConnection, wanted: &CommitBlob) -> Result<Option<i64>> {
    loop {
        if let Some(own) = &wanted.key
            && let Some(id) = insert_blob(connection, wanted, own).await?
        {
            return Ok(Some(id));
        }
        let found: Option<(i64, i64, String)> =
            sqlx::query_as("SELECT id, state, storage_key FROM blobs WHERE digest = $1 FOR KEY SHARE")
                .bind(wanted.digest.to_bytes())
                .fetch_optional(&mut *connection)
                .await
                .during("finding a blob")?;
        match (found, &wanted.key) {
            (Some((id, LIVE, _)), Some(own)) => {
                doom(connection, own.as_str()).await?;
                return Ok(Some(id));
            }
            (Some((id, LIVE, _)), None) => return Ok(Some(id)),
            (Some((id, _, corrupt)), Some(own)) => {
                if heal(connection, id, own, &corrupt).await? {
                    return Ok(Some(id));
                }
            }
            (_, None) => return Ok(None),
            // It was collected between the two statements.
            (None, Some(_)) => {}
        }
    }
}

async fn insert_blob(
    connection: &mut PgConnection,
    wanted: &CommitBlob,
    key: &ObjectName,
) -> Result<Option<i64>> {
    sqlx::query_scalar(
        "INSERT INTO blobs (digest, size, storage_key, created_at, verified_at)
         VALUES ($1, $2, $3, now_micros(), now_micros()) ON CONFLICT (digest) DO NOTHING RETURNING id",
    )
    .bind(wanted.digest.to_bytes())
    .bind(stored_size(wanted.size))
    .bind(key.as_str())
    .fetch_optional(connection)
    .await
    .during("inserting a blob")
}

/// A push heals a blob whose object was found corrupt. False: another one did meanwhile.
async fn heal(connection: &mut PgConnection, blob: i64, own: &ObjectName, corrupt: &str) -> Result<bool> {
    let healed = sqlx::query(
        "UPDATE blobs SET storage_key = $2, state = 0, verified_at = now_micros()
         WHERE id = $1 AND storage_key = $3 AND state <> 0",
    )
    .bind(blob)
    .bind(own.as_str())
    .bind(corrupt)
    .execute(&mut *connection)
    .await
    .during("healing a blob")?;
    if healed.rows_affected() == 0 {
        return Ok(false);
    }
    doom(connection, corrupt).await?;
    Ok(true)
}

/// Makes a blob visible in a repository, charging it where it is new there.
async fn link(
    connection: &mut PgConnection,
    repository_id: i64,
    blob_id: i64,
    size: i64,
    reason: &'static str,
    review_delay: i64,
) -> Result<()> {
    // `xmax` is set where the row was there before.
    let new: bool = sqlx::query_scalar(
        "INSERT INTO repository_blobs AS l (repository_id, blob_id, linked_at, review_at, review_reason)
         VALUES ($1, $2, now_micros(), now_micros() + $3, $4)
         ON CONFLICT (repository_id, blob_id)
             DO UPDATE SET hidden = 0, review_at = excluded.review_at, review_reason = excluded.review_reason
         RETURNING l.xmax = 0",
    )
    .bind(repository_id)
    .bind(blob_id)
    .bind(review_delay)
    .bind(reason)
    .fetch_one(&mut *connection)
    .await
    .during("linking a blob")?;
    if new {
        charge(connection, repository_id, size).await?;
    }
    Ok(())
}

/// Adds to a repository's usage: to one row of sixteen, since this is the last that all its pushes share.
pub(super) async fn charge(connection: &mut PgConnection, repository_id: i64, bytes: i64) -> Result<()> {
    sqlx::query(
        "INSERT INTO repository_usage AS u (repository_id, shard, bytes) VALUES ($1, $2, $3)
         ON CONFLICT (repository_id, shard) DO UPDATE SET bytes = u.bytes + excluded.bytes",
    )
    .bind(repository_id)
    .bind(rand::random_range(0..16_i64))
    .bind(bytes)
    .execute(connection)
    .await
    .during("charging a repository")?;
    Ok(())
}

async fn hide_blob(
    connection: &mut PgConnection,
    repository: &RepoName,
    digest: &Digest,
) -> Result<DeleteOutcome> {
    // The mutex: no manifest that needs the blob comes between the check and the commit.
    let Some(repository_id) = lock_repository(connection, repository).await? else {
        return Ok(DeleteOutcome::Unknown);
    };
    let link: Option<i64> = sqlx::query_scalar(
        "SELECT l.blob_id FROM blobs b
         JOIN repository_blobs l ON l.repository_id = $1 AND l.blob_id = b.id AND l.hidden = 0
         WHERE b.digest = $2",
    )
    .bind(repository_id)
    .bind(digest.to_bytes())
    .fetch_optional(&mut *connection)
    .await
    .during("finding a blob to delete")?;
    let Some(blob_id) = link else {
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
        "UPDATE repository_blobs SET hidden = 1, review_at = now_micros(), review_reason = 'deleted'
         WHERE repository_id = $1 AND blob_id = $2",
    )
    .bind(repository_id)
    .bind(blob_id)
    .execute(connection)
    .await
    .during("hiding a blob")?;
    Ok(DeleteOutcome::Deleted)
}
