//! Verifying blobs.

use async_trait::async_trait;
use oci::Digest;

use super::rows::{During, digest as read_digest, size};
use super::writer::Durability::{Async, Durable};
use super::{Sqlite, now};
use crate::metadata::{BlobToVerify, Integrity, Result};
use crate::storage::ObjectName;

type Row = (i64, Vec<u8>, i64, String);

#[async_trait]
impl Integrity for Sqlite {
    async fn blobs_after(&self, after: i64, limit: u32) -> Result<Vec<BlobToVerify>> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, digest, size, storage_key FROM blobs WHERE id > $1 AND state = 0 ORDER BY id LIMIT $2",
        )
        .bind(after)
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .during("listing blobs to verify")?;
        rows.into_iter().map(blob).collect()
    }

    async fn blob_to_verify(&self, digest: &Digest) -> Result<Option<BlobToVerify>> {
        let row: Option<Row> =
            sqlx::query_as("SELECT id, digest, size, storage_key FROM blobs WHERE digest = $1 AND state = 0")
                .bind(digest.to_bytes())
                .fetch_optional(&self.readers)
                .await
                .during("finding a blob to verify")?;
        row.map(blob).transpose()
    }

    async fn mark_verified(&self, blobs: &[i64]) -> Result<()> {
        let ids = serde_json::Value::from(blobs).to_string();
        self.writer
            .run(Async, move |connection| {
                Box::pin(async move {
                    sqlx::query(
                        "UPDATE blobs SET verified_at = $2 WHERE id IN (SELECT value FROM json_each($1))",
                    )
                    .bind(ids)
                    .bind(now())
                    .execute(connection)
                    .await
                    .during("recording verified blobs")?;
                    Ok(())
                })
            })
            .await
    }

    async fn quarantine(&self, blob: i64, key: &ObjectName) -> Result<bool> {
        let key = key.to_string();
        self.writer
            .run(Durable, move |connection| {
                Box::pin(async move {
                    let updated = sqlx::query(
                        "UPDATE blobs SET state = 1, verified_at = $3
                         WHERE id = $1 AND storage_key = $2 AND state = 0",
                    )
                    .bind(blob)
                    .bind(key)
                    .bind(now())
                    .execute(connection)
                    .await
                    .during("quarantining a blob")?;
                    Ok(updated.rows_affected() == 1)
                })
            })
            .await
    }

    async fn progress(&self, job: &str) -> Result<Option<String>> {
        sqlx::query_scalar("SELECT value FROM progress WHERE name = $1")
            .bind(job)
            .fetch_optional(&self.readers)
            .await
            .during("reading a job's progress")
    }

    async fn set_progress(&self, job: &str, value: &str) -> Result<()> {
        let (job, value) = (job.to_owned(), value.to_owned());
        self.writer
            .run(Async, move |connection| {
                Box::pin(async move {
                    sqlx::query(
                        "INSERT INTO progress (name, value, updated_at) VALUES ($1, $2, $3)
                         ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
                    )
                    .bind(job)
                    .bind(value)
                    .bind(now())
                    .execute(connection)
                    .await
                    .during("recording a job's progress")?;
                    Ok(())
                })
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
