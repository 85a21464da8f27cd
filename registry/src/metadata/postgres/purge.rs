//! What collection removes once it has decided, in the transaction that decided it.

use oci::Digest;
use sqlx::postgres::PgConnection;

use super::blobs::charge;
use super::rows::{During, size};
use super::{links, outbox};
use crate::metadata::collection::sql;
use crate::metadata::{Change, Result};

/// `$1` the manifest.
pub(super) const HELD: &str = "SELECT blob_id FROM manifest_blobs WHERE manifest_id = $1
     UNION
     SELECT b.id FROM manifest_children c JOIN blobs b ON b.digest = c.child_digest WHERE c.parent_id = $1";

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
    pub(super) async fn run(self, connection: &mut PgConnection) -> Result<()> {
        sqlx::query(sql::REVIEW_CHILDREN)
            .bind(self.repository)
            .bind(self.id)
            .bind(self.review_at)
            .execute(&mut *connection)
            .await
            .during("enqueueing an index's manifests")?;
        let held: Vec<i64> = sqlx::query_scalar(HELD)
            .bind(self.id)
            .fetch_all(&mut *connection)
            .await
            .during("finding what a manifest held")?;
        links::review(
            connection,
            self.repository,
            &held,
            self.review_at,
            "manifest purged",
        )
        .await?;
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
            super::manifests::count(connection, self.repository, -1).await?;
            // Who follows the changes has it as pushed: what was in the trash they know to be deleted.
            outbox::tell(connection, self.repository, &Change::purged(self.digest)).await?;
        }
        charge(connection, self.repository, -self.size).await
    }
}

pub(super) async fn unlink(
    connection: &mut PgConnection,
    repository: i64,
    blob: i64,
    size: i64,
) -> Result<()> {
    sqlx::query(sql::DELETE_LINK)
        .bind(repository)
        .bind(blob)
        .execute(&mut *connection)
        .await
        .during("deleting a link")?;
    charge(connection, repository, -size).await
}

/// Deletes a blob that no repository has; returns its size then.
pub(super) async fn doom_unlinked(
    connection: &mut PgConnection,
    blob: i64,
    delay: i64,
) -> Result<Option<u64>> {
    let gone: Option<(String, i64)> = sqlx::query_as(sql::DELETE_BLOB)
        .bind(blob)
        .fetch_optional(&mut *connection)
        .await
        .during("deleting a blob")?;
    let Some((key, bytes)) = gone else { return Ok(None) };
    sqlx::query("INSERT INTO doomed (key, size, due_at) VALUES ($1, $2, now_micros() + $3)")
        .bind(key)
        .bind(bytes)
        .bind(delay)
        .execute(connection)
        .await
        .during("dooming an object")?;
    Ok(Some(size(bytes)))
}
