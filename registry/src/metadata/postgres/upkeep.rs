//! Cleaning up: expired sessions, doomed objects, what a crash left. Replicas may all do it at once: each takes rows
//! that no other has.

use async_trait::async_trait;

use super::Durability::{Async, Durable};
use super::rows::{During, corrupt, size};
use super::transaction::commit;
use super::{GENERATION, Postgres};
use crate::metadata::{Doomed, MetadataError, Opened, Result, Upkeep};
use crate::storage::{ObjectName, UploadId};

/// Who claimed a doomed object has this long to delete it.
const REAPER_LEASE_MICROS: i64 = 300_000_000;

/// An object that no table knows is kept this long: the database may be the one that is wrong.
const ORPHAN_DELAY_MICROS: i64 = 7 * 24 * 3_600_000_000;

pub(super) const EXPIRED: &str = "SELECT id FROM uploads WHERE expires_at <= now_micros()
     ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED";

pub(super) const DUE: &str = "SELECT key, size FROM doomed
     WHERE due_at <= now_micros() AND (claimed_until IS NULL OR claimed_until < now_micros())
     ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED";

#[async_trait]
impl Upkeep for Postgres {
    async fn expire_uploads(&self, limit: u32) -> Result<Vec<UploadId>> {
        let ids: Vec<Vec<u8>> = self
            .retrying(|| async {
                let mut tx = self.begin(Async).await?;
                let ids: Vec<Vec<u8>> = sqlx::query_scalar(EXPIRED)
                    .bind(i64::from(limit))
                    .fetch_all(&mut *tx)
                    .await
                    .during("finding expired uploads")?;
                if !ids.is_empty() {
                    sqlx::query(
                        "WITH gone AS (DELETE FROM uploads WHERE id = ANY($1) RETURNING key)
                         INSERT INTO doomed (key, due_at) SELECT key, now_micros() FROM gone WHERE key IS NOT NULL",
                    )
                    .bind(&ids)
                    .execute(&mut *tx)
                    .await
                    .during("expiring uploads")?;
                }
                commit(tx).await?;
                Ok(ids)
            })
            .await?;
        ids.iter()
            .map(|id| UploadId::from_bytes(id).map_err(corrupt("upload id")))
            .collect()
    }

    async fn claim_doomed(&self, limit: u32) -> Result<Vec<Doomed>> {
        let claimed: Vec<(String, Option<i64>)> = self
            .retrying(|| async {
                let mut tx = self.begin(Durable).await?;
                let claimed: Vec<(String, Option<i64>)> = sqlx::query_as(DUE)
                    .bind(i64::from(limit))
                    .fetch_all(&mut *tx)
                    .await
                    .during("finding doomed objects")?;
                if claimed.is_empty() {
                    return Ok(claimed);
                }
                let keys: Vec<&str> = claimed.iter().map(|(key, _)| key.as_str()).collect();
                sqlx::query(
                    "UPDATE doomed SET claimed_until = now_micros() + $2, attempts = attempts + 1
                     WHERE key = ANY($1)",
                )
                .bind(keys)
                .bind(REAPER_LEASE_MICROS)
                .execute(&mut *tx)
                .await
                .during("claiming doomed objects")?;
                commit(tx).await?;
                Ok(claimed)
            })
            .await?;
        let doomed = |(key, bytes): (String, Option<i64>)| Doomed {
            key: ObjectName::new(key),
            size: bytes.map(size),
        };
        Ok(claimed.into_iter().map(doomed).collect())
    }

    async fn forget_doomed(&self, keys: &[ObjectName]) -> Result<()> {
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            sqlx::query("DELETE FROM doomed WHERE key = ANY($1)")
                .bind(texts(keys))
                .execute(&mut *tx)
                .await
                .during("forgetting deleted objects")?;
            commit(tx).await
        })
        .await
    }

    async fn doom_orphans(&self, keys: &[ObjectName]) -> Result<u64> {
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            let doomed = sqlx::query(
                "INSERT INTO doomed (key, due_at)
                 SELECT q.key, now_micros() + $2 FROM unnest($1::text[]) AS q (key)
                 WHERE NOT EXISTS (SELECT 1 FROM uploads u WHERE u.key = q.key)
                     AND NOT EXISTS (SELECT 1 FROM blobs b WHERE b.storage_key = q.key)
                 ON CONFLICT DO NOTHING",
            )
            .bind(texts(keys))
            .bind(ORPHAN_DELAY_MICROS)
            .execute(&mut *tx)
            .await
            .during("dooming orphans")?;
            commit(tx).await?;
            Ok(doomed.rows_affected())
        })
        .await
    }

    async fn without_session(&self, ids: &[UploadId]) -> Result<Vec<UploadId>> {
        let wanted: Vec<Vec<u8>> = ids.iter().map(|id| id.as_bytes().to_vec()).collect();
        let gone: Vec<Vec<u8>> = self
            .retrying(|| async {
                sqlx::query_scalar(
                    "SELECT q.id FROM unnest($1::bytea[]) AS q (id)
                     WHERE NOT EXISTS (SELECT 1 FROM uploads u WHERE u.id = q.id)",
                )
                .bind(&wanted)
                .fetch_all(&self.pool())
                .await
                .during("finding uploads")
            })
            .await?;
        gone.iter()
            .map(|id| UploadId::from_bytes(id).map_err(corrupt("upload id")))
            .collect()
    }

    async fn opened(&self) -> Result<Opened> {
        Ok(self.opened.clone())
    }

    async fn ping(&self) -> Result<()> {
        // Not repeated: who asks wants to know about now.
        let needed: i64 = sqlx::query_scalar("SELECT min_binary FROM store")
            .fetch_one(&self.pool())
            .await
            .during("checking that the database answers")?;
        // A newer release has finished its migration since this one started.
        if needed > GENERATION {
            return Err(MetadataError::TooNew {
                needed,
                ours: GENERATION,
            });
        }
        Ok(())
    }

    async fn broken(&self) {
        // The server recovers by itself, and what it did not acknowledge was not acknowledged here.
        std::future::pending::<()>().await;
    }

    async fn close(&self) -> Result<()> {
        let mut tx = self.begin(Durable).await?;
        sqlx::query("UPDATE store SET clean = 1")
            .execute(&mut *tx)
            .await
            .during("closing the database")?;
        commit(tx).await?;
        self.link.close().await;
        Ok(())
    }
}

fn texts(keys: &[ObjectName]) -> Vec<&str> {
    keys.iter().map(ObjectName::as_str).collect()
}
