//! Rebuilding a database.

use async_trait::async_trait;
use oci::{Digest, RepoName};

use super::Durability::{Async, Durable};
use super::Postgres;
use super::blobs::charge;
use super::rows::{During, digest_list, ensure_repository, size, stored_size};
use super::transaction::commit;
use crate::metadata::{JournalPosition, Rebuild, Result};
use crate::storage::ObjectName;

/// What a rebuild leaves over is kept this long: the journal may be the one that is wrong.
const LEFTOVER_DELAY_MICROS: i64 = 7 * 24 * 3_600_000_000;

#[async_trait]
impl Rebuild for Postgres {
    async fn adopt_store(&self, uuid: &str) -> Result<()> {
        self.retrying(|| async {
            let mut tx = self.begin(Durable).await?;
            sqlx::query("UPDATE store SET uuid = $1")
                .bind(uuid)
                .execute(&mut *tx)
                .await
                .during("taking over the blob store's identity")?;
            commit(tx).await
        })
        .await
    }

    async fn add_blobs(&self, blobs: Vec<(Digest, u64, ObjectName)>) -> Result<()> {
        let digests = digest_list(blobs.iter().map(|(digest, ..)| digest));
        let sizes: Vec<i64> = blobs.iter().map(|(_, size, _)| stored_size(*size)).collect();
        let keys: Vec<&str> = blobs.iter().map(|(.., key)| key.as_str()).collect();
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            sqlx::query(
                "INSERT INTO blobs (digest, size, storage_key, created_at, verified_at)
                 SELECT q.digest, q.size, q.key, now_micros(), 0
                 FROM unnest($1::bytea[], $2::bigint[], $3::text[]) AS q (digest, size, key) ON CONFLICT DO NOTHING",
            )
            .bind(&digests)
            .bind(&sizes)
            .bind(&keys)
            .execute(&mut *tx)
            .await
            .during("adding objects")?;
            sqlx::query(
                "INSERT INTO doomed (key, due_at)
                 SELECT q.key, now_micros() + $2 FROM unnest($1::text[]) AS q (key)
                 WHERE NOT EXISTS (SELECT 1 FROM blobs WHERE storage_key = q.key)
                     AND NOT EXISTS (SELECT 1 FROM uploads u WHERE u.key = q.key)
                 ON CONFLICT DO NOTHING",
            )
            .bind(&keys)
            .bind(LEFTOVER_DELAY_MICROS)
            .execute(&mut *tx)
            .await
            .during("dooming objects that are there twice")?;
            commit(tx).await
        })
        .await
    }

    async fn unknown_objects(&self, keys: &[ObjectName]) -> Result<Vec<ObjectName>> {
        let wanted: Vec<&str> = keys.iter().map(ObjectName::as_str).collect();
        let unknown: Vec<String> = self
            .retrying(|| async {
                sqlx::query_scalar(
                    "SELECT q.key FROM unnest($1::text[]) AS q (key)
                     WHERE NOT EXISTS (SELECT 1 FROM blobs WHERE storage_key = q.key)
                         AND NOT EXISTS (SELECT 1 FROM uploads u WHERE u.key = q.key)
                         AND NOT EXISTS (SELECT 1 FROM doomed d WHERE d.key = q.key)",
                )
                .bind(&wanted)
                .fetch_all(&self.pool())
                .await
                .during("looking objects up")
            })
            .await?;
        Ok(unknown.into_iter().map(ObjectName::new).collect())
    }

    async fn link_blobs(&self, repository: &RepoName, blobs: &[Digest]) -> Result<()> {
        let blobs = digest_list(blobs);
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            let id = ensure_repository(&mut tx, repository).await?;
            let bytes: i64 = sqlx::query_scalar(
                "WITH linked AS (
                     INSERT INTO repository_blobs (repository_id, blob_id, linked_at, review_at, review_reason)
                     SELECT $1, b.id, now_micros(), now_micros() + $3, 'rebuilt'
                     FROM unnest($2::bytea[]) AS q (digest) JOIN blobs b ON b.digest = q.digest
                     ORDER BY b.id ON CONFLICT DO NOTHING RETURNING blob_id)
                 SELECT coalesce(sum(b.size), 0)::bigint FROM linked JOIN blobs b ON b.id = linked.blob_id",
            )
            .bind(id)
            .bind(&blobs)
            .bind(LEFTOVER_DELAY_MICROS)
            .fetch_one(&mut *tx)
            .await
            .during("linking blobs")?;
            charge(&mut tx, id, bytes).await?;
            commit(tx).await
        })
        .await
    }

    async fn finish_rebuild(&self, position: JournalPosition) -> Result<u64> {
        self.retrying(|| async {
            let mut tx = self.begin(Durable).await?;
            sqlx::query(
                "WITH gone AS (DELETE FROM blobs
                     WHERE NOT EXISTS (SELECT 1 FROM repository_blobs l WHERE l.blob_id = blobs.id)
                     RETURNING storage_key)
                 INSERT INTO doomed (key, due_at) SELECT storage_key, now_micros() + $1 FROM gone
                 ON CONFLICT DO NOTHING",
            )
            .bind(LEFTOVER_DELAY_MICROS)
            .execute(&mut *tx)
            .await
            .during("dooming what nothing refers to")?;
            sqlx::query("DELETE FROM outbox")
                .execute(&mut *tx)
                .await
                .during("emptying the outbox")?;
            sqlx::query("SELECT setval(pg_get_serial_sequence('outbox', 'id'), greatest($1, 1), $1 > 0)")
                .bind(position.last_event)
                .execute(&mut *tx)
                .await
                .during("going on from the journal's last event")?;
            sqlx::query("UPDATE store SET journal_head = $1")
                .bind(position.head)
                .execute(&mut *tx)
                .await
                .during("recording how far the journal goes")?;
            let blobs: i64 = sqlx::query_scalar("SELECT count(*) FROM blobs")
                .fetch_one(&mut *tx)
                .await
                .during("counting blobs")?;
            commit(tx).await?;
            Ok(size(blobs))
        })
        .await
    }
}
