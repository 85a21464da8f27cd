//! Rebuilding a database.

use async_trait::async_trait;
use oci::{Digest, RepoName};

use super::rows::{During, digest_list, ensure_repository, text_list};
use super::writer::Durability::{Async, Durable};
use super::{Sqlite, now};
use crate::metadata::{JournalPosition, Rebuild, Result};
use crate::storage::ObjectName;

/// What a rebuild leaves over is kept this long: the journal may be the one that is wrong.
const LEFTOVER_DELAY_MICROS: i64 = 7 * 24 * 3_600_000_000;

#[async_trait]
impl Rebuild for Sqlite {
    async fn adopt_store(&self, uuid: &str) -> Result<()> {
        let uuid = uuid.to_owned();
        self.writer
            .run(Durable, move |connection| {
                Box::pin(async move {
                    sqlx::query("UPDATE store SET uuid = $1")
                        .bind(uuid)
                        .execute(connection)
                        .await
                        .during("taking over the blob store's identity")?;
                    Ok(())
                })
            })
            .await
    }

    async fn add_blobs(&self, blobs: Vec<(Digest, u64, ObjectName)>) -> Result<()> {
        let rows: Vec<(String, u64, String)> = blobs
            .iter()
            .map(|(digest, size, key)| (hex::encode(digest.to_bytes()), *size, key.to_string()))
            .collect();
        let rows = serde_json::to_string(&rows).unwrap_or_default();
        self.writer
            .run(Async, move |connection| {
                Box::pin(async move {
                    sqlx::query(
                        "INSERT INTO blobs (digest, size, storage_key, created_at, verified_at)
                             SELECT unhex(value ->> 0), value ->> 1, value ->> 2, $2, 0 FROM json_each($1)
                             WHERE true ON CONFLICT DO NOTHING;
                         INSERT INTO doomed (key, due_at)
                             SELECT value ->> 2, $3 FROM json_each($1)
                             WHERE NOT EXISTS (SELECT 1 FROM blobs WHERE storage_key = value ->> 2)
                                 AND NOT EXISTS (SELECT 1 FROM uploads WHERE key = value ->> 2)
                             ON CONFLICT DO NOTHING",
                    )
                    .bind(rows)
                    .bind(now())
                    .bind(now() + LEFTOVER_DELAY_MICROS)
                    .execute(connection)
                    .await
                    .during("adding objects")?;
                    Ok(())
                })
            })
            .await
    }

    async fn unknown_objects(&self, keys: &[ObjectName]) -> Result<Vec<ObjectName>> {
        let keys: Vec<&str> = keys.iter().map(ObjectName::as_str).collect();
        let unknown: Vec<String> = sqlx::query_scalar(
            "SELECT value FROM json_each($1)
             WHERE NOT EXISTS (SELECT 1 FROM blobs WHERE storage_key = value)
                 AND NOT EXISTS (SELECT 1 FROM uploads WHERE key = value)
                 AND NOT EXISTS (SELECT 1 FROM doomed WHERE key = value)",
        )
        .bind(text_list(&keys))
        .fetch_all(&self.readers)
        .await
        .during("looking objects up")?;
        Ok(unknown.into_iter().map(ObjectName::new).collect())
    }

    async fn link_blobs(&self, repository: &RepoName, blobs: &[Digest]) -> Result<()> {
        let (repository, blobs) = (repository.clone(), digest_list(blobs));
        self.writer
            .run(Async, move |connection| {
                Box::pin(async move {
                    let id = ensure_repository(connection, &repository).await?;
                    sqlx::query(
                        "INSERT INTO repository_usage (repository_id, shard, bytes)
                             SELECT $1, 0, coalesce(sum(b.size), 0) FROM json_each($2) j
                             JOIN blobs b ON b.digest = unhex(j.value)
                             WHERE NOT EXISTS (SELECT 1 FROM repository_blobs l
                                 WHERE l.repository_id = $1 AND l.blob_id = b.id)
                             ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes;
                         INSERT INTO repository_blobs (repository_id, blob_id, linked_at, review_at, review_reason)
                             SELECT $1, b.id, $3, $4, 'rebuilt' FROM json_each($2) j
                             JOIN blobs b ON b.digest = unhex(j.value)
                             WHERE true ON CONFLICT DO NOTHING",
                    )
                    .bind(id)
                    .bind(blobs)
                    .bind(now())
                    .bind(now() + LEFTOVER_DELAY_MICROS)
                    .execute(connection)
                    .await
                    .during("linking blobs")?;
                    Ok(())
                })
            })
            .await
    }

    async fn finish_rebuild(&self, position: JournalPosition) -> Result<u64> {
        self.writer
            .run(Durable, move |connection| {
                Box::pin(async move {
                    let blobs: i64 = sqlx::query_scalar(
                        "INSERT INTO doomed (key, due_at)
                             SELECT storage_key, $1 FROM blobs b
                             WHERE NOT EXISTS (SELECT 1 FROM repository_blobs l WHERE l.blob_id = b.id)
                             ON CONFLICT DO NOTHING;
                         DELETE FROM blobs
                             WHERE NOT EXISTS (SELECT 1 FROM repository_blobs l WHERE l.blob_id = blobs.id);
                         DELETE FROM outbox;
                         DELETE FROM sqlite_sequence WHERE name = 'outbox';
                         INSERT INTO sqlite_sequence (name, seq) VALUES ('outbox', $2);
                         UPDATE store SET journal_head = $3;
                         SELECT count(*) FROM blobs",
                    )
                    .bind(now() + LEFTOVER_DELAY_MICROS)
                    .bind(position.last_event)
                    .bind(position.head)
                    .fetch_one(connection)
                    .await
                    .during("finishing a rebuild")?;
                    Ok(u64::try_from(blobs).unwrap_or(0))
                })
            })
            .await
    }
}
