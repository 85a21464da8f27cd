//! What collection removes once it has decided.

use oci::Digest;
use sqlx::sqlite::SqliteConnection;

use super::now;
use super::rows::{During, size};
use crate::metadata::collection::sql;
use crate::metadata::{Change, Result};

/// A manifest that goes for good.
pub(super) struct Purge {
    pub(super) repository: i64,
    pub(super) id: i64,
    pub(super) digest: Digest,
    pub(super) size: i64,
    /// Whether it is counted in the repository: not so in the trash.
    pub(super) counted: bool,
    /// When what it held is reviewed.
    pub(super) review_at: i64,
}

impl Purge {
    pub(super) async fn run(self, connection: &mut SqliteConnection) -> Result<()> {
        for statement in [sql::REVIEW_BLOBS, sql::REVIEW_CHILDREN] {
            sqlx::query(statement)
                .bind(self.repository)
                .bind(self.id)
                .bind(self.review_at)
                .execute(&mut *connection)
                .await
                .during("enqueueing what a manifest held")?;
        }
        sqlx::query(sql::REVIEW_REFERRERS)
            .bind(self.repository)
            .bind(self.digest.to_bytes())
            .bind(self.review_at)
            .execute(&mut *connection)
            .await
            .during("enqueueing a manifest's referrers")?;
        sqlx::query(sql::DELETE_MANIFEST)
            .bind(self.id)
            .execute(&mut *connection)
            .await
            .during("purging a manifest")?;
        if self.counted {
            self.tell(connection).await?;
        }
        discharge(connection, self.repository, self.size).await
    }

    /// Who follows the changes has it as pushed: what was in the trash they know to be deleted.
    async fn tell(&self, connection: &mut SqliteConnection) -> Result<()> {
        let change = Change::purged(self.digest);
        sqlx::query(
            "UPDATE repositories SET manifest_count = manifest_count - 1 WHERE id = $1;
             INSERT INTO outbox (kind, repository, manifest, payload, at)
                 SELECT 'delete', name, $2, $3, $4 FROM repositories WHERE id = $1",
        )
        .bind(self.repository)
        .bind(self.digest.to_bytes())
        .bind(change.to_json())
        .bind(now())
        .execute(connection)
        .await
        .during("telling of a purged manifest")?;
        Ok(())
    }
}

pub(super) async fn unlink(
    connection: &mut SqliteConnection,
    repository: i64,
    blob: i64,
    bytes: i64,
) -> Result<()> {
    sqlx::query(sql::DELETE_LINK)
        .bind(repository)
        .bind(blob)
        .execute(&mut *connection)
        .await
        .during("deleting a link")?;
    discharge(connection, repository, bytes).await
}

/// Deletes a blob that no repository has; returns its size then.
pub(super) async fn doom_unlinked(
    connection: &mut SqliteConnection,
    blob: i64,
    due_at: i64,
) -> Result<Option<u64>> {
    let gone: Option<(String, i64)> = sqlx::query_as(sql::DELETE_BLOB)
        .bind(blob)
        .fetch_optional(&mut *connection)
        .await
        .during("deleting a blob")?;
    let Some((key, bytes)) = gone else { return Ok(None) };
    sqlx::query(sql::DOOM)
        .bind(key)
        .bind(bytes)
        .bind(due_at)
        .execute(connection)
        .await
        .during("dooming an object")?;
    Ok(Some(size(bytes)))
}

async fn discharge(connection: &mut SqliteConnection, repository: i64, bytes: i64) -> Result<()> {
    sqlx::query(sql::CHARGE)
        .bind(repository)
        .bind(-bytes)
        .execute(connection)
        .await
        .during("giving a repository bytes back")?;
    Ok(())
}
