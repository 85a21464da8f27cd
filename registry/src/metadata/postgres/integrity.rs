//! Verifying blobs.

use async_trait::async_trait;
use oci::Digest;

use super::Durability::{Async, Durable};
use super::Postgres;
use super::rows::{During, digest as read_digest, size};
use super::transaction::commit;
use crate::metadata::{BlobToVerify, Integrity, Result};
use crate::storage::ObjectName;

type Row = (i64, Vec<u8>, i64, String);

#[async_trait]
impl Integrity for Postgres {
    async fn blobs_after(&self, after: i64, limit: u32) -> Result<Vec<BlobToVerify>> {
        let rows: Vec<Row> = self
            .retrying(|| async {
                sqlx::query_as(
                    "SELECT id, digest, size, storage_key FROM blobs
                     WHERE id > $1 AND state = 0 ORDER BY id LIMIT $2",
                )
                .bind(after)
                .bind(i64::from(limit))
                .fetch_all(&self.pool())
                .await
                .during("listing blobs to verify")
            })
            .await?;
        rows.into_iter().map(blob).collect()
    }

    async fn blob_to_verify(&self, digest: &Digest) -> Result<Option<BlobToVerify>> {
        let row: Option<Row> = self
            .retrying(|| async {
                sqlx::query_as(
                    "SELECT id, digest, size, storage_key FROM blobs WHERE digest = $1 AND state = 0",
                )
                .bind(digest.to_bytes())
                .fetch_optional(&self.pool())
                .await
                .during("finding a blob to verify")
            })
            .await?;
        row.map(blob).transpose()
    }

    async fn mark_verified(&self, blobs: &[i64]) -> Result<()> {
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            sqlx::query("UPDATE blobs SET verified_at = now_micros() WHERE id = ANY($1)")
                .bind(blobs)
                .execute(&mut *tx)
                .await
                .during("recording verified blobs")?;
            commit(tx).await
        })
        .await
    }

    async fn quarantine(&self, blob: i64, key: &ObjectName) -> Result<bool> {
        self.retrying(|| async {
            let mut tx = self.begin(Durable).await?;
            let updated = sqlx::query(
                "UPDATE blobs SET state = 1, verified_at = now_micros()
                 WHERE id = $1 AND storage_key = $2 AND state = 0",
            )
            .bind(blob)
            .bind(key.as_str())
            .execute(&mut *tx)
            .await
            .during("quarantining a blob")?;
            commit(tx).await?;
            Ok(updated.rows_affected() == 1)
        })
        .await
    }

    async fn progress(&self, job: &str) -> Result<Option<String>> {
        self.retrying(|| async {
            sqlx::query_scalar("SELECT value FROM progress WHERE name = $1")
                .bind(job)
                .fetch_optional(&self.pool())
                .await
                .during("reading a job's progress")
        })
        .await
    }

    async fn set_progress(&self, job: &str, value: &str) -> Result<()> {
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            sqlx::query(
                "INSERT INTO progress (name, value, updated_at) VALUES ($1, $2, now_micros())
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
            )
            .bind(job)
            .bind(value)
            .execute(&mut *tx)
            .await
            .during("recording a job's progress")?;
            commit(tx).await
        })
        .await
    }
}

fn blob((id, digest, stored, key): Row) -> Result<BlobToVerify> {
    Ok(BlobToVerify {
        id,
        digest: read_digest(&digest)?,
        size: size(stored),
        key: ObjectName::new(key),
    })
}
