//! Cleaning up: expired sessions, doomed objects, what a crash left.

use async_trait::async_trait;

use super::rows::{During, corrupt, size, text_list};
use super::uploads::{doom, insert};
use super::writer::Durability::{Async, Durable};
use super::{Sqlite, now};
use crate::metadata::{Doomed, Opened, Result, Upkeep};
use crate::storage::{ObjectName, UploadId};

/// Who claimed a doomed object has this long to delete it.
const REAPER_LEASE_MICROS: i64 = 300_000_000;

/// An object that no table knows is kept this long: the database may be the one that is wrong.
const ORPHAN_DELAY_MICROS: i64 = 7 * 24 * 3_600_000_000;

#[async_trait]
impl Upkeep for Sqlite {
    async fn expire_uploads(&self, limit: u32) -> Result<Vec<UploadId>> {
        self.fresh.expire(now() - self.times.upload_idle);
        self.writer
            .run(Async, move |connection| {
                Box::pin(async move {
                    let now = now();
                    let expired: Vec<(Vec<u8>, Option<String>)> = sqlx::query_as(
                        "DELETE FROM uploads WHERE id IN
                             (SELECT id FROM uploads WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)
                         RETURNING id, key",
                    )
                    .bind(now)
                    .bind(limit)
                    .fetch_all(&mut *connection)
                    .await
                    .during("expiring uploads")?;
                    let mut ids = Vec::with_capacity(expired.len());
                    for (id, key) in expired {
                        if let Some(key) = key {
                            doom(connection, &key, now).await?;
                        }
                        ids.push(UploadId::from_bytes(&id).map_err(corrupt("upload id"))?);
                    }
                    Ok(ids)
                })
            })
            .await
    }

    async fn claim_doomed(&self, limit: u32) -> Result<Vec<Doomed>> {
        let now = now();
        let due: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM doomed WHERE due_at <= $1)")
            .bind(now)
            .fetch_one(&self.readers)
            .await
            .during("looking for doomed objects")?;
        if !due {
            return Ok(Vec::new());
        }
        let claimed: Vec<(String, Option<i64>)> = self
            .writer
            .run(Durable, move |connection| {
                Box::pin(async move {
                    sqlx::query_as(
                        "UPDATE doomed SET claimed_until = $1 + $2, attempts = attempts + 1 WHERE key IN
                             (SELECT key FROM doomed
                              WHERE due_at <= $1 AND (claimed_until IS NULL OR claimed_until < $1)
                              ORDER BY due_at LIMIT $3)
                         RETURNING key, size",
                    )
                    .bind(now)
                    .bind(REAPER_LEASE_MICROS)
                    .bind(limit)
                    .fetch_all(connection)
                    .await
                    .during("claiming doomed objects")
                })
            })
            .await?;
        let doomed = |(key, bytes): (String, Option<i64>)| Doomed {
            key: ObjectName::new(key),
            size: bytes.map(size),
        };
        Ok(claimed.into_iter().map(doomed).collect())
    }

    async fn forget_doomed(&self, keys: &[ObjectName]) -> Result<()> {
        let keys = list(keys);
        self.writer
            .run(Async, move |connection| {
                Box::pin(async move {
                    sqlx::query("DELETE FROM doomed WHERE key IN (SELECT value FROM json_each($1))")
                        .bind(keys)
                        .execute(connection)
                        .await
                        .during("forgetting deleted objects")?;
                    Ok(())
                })
            })
            .await
    }

    async fn doom_orphans(&self, keys: &[ObjectName]) -> Result<u64> {
        let keys = list(keys);
        self.writer
            .run(Async, move |connection| {
                Box::pin(async move {
                    let doomed = sqlx::query(
                        "INSERT INTO doomed (key, due_at) SELECT value, $2 FROM json_each($1)
                         WHERE NOT EXISTS (SELECT 1 FROM uploads WHERE key = value)
                             AND NOT EXISTS (SELECT 1 FROM blobs WHERE storage_key = value)
                         ON CONFLICT DO NOTHING",
                    )
                    .bind(keys)
                    .bind(now() + ORPHAN_DELAY_MICROS)
                    .execute(connection)
                    .await
                    .during("dooming orphans")?;
                    Ok(doomed.rows_affected())
                })
            })
            .await
    }

    async fn without_session(&self, ids: &[UploadId]) -> Result<Vec<UploadId>> {
        let mut gone = Vec::new();
        for id in ids {
            if self.fresh.find(*id).is_some() {
                continue;
            }
            let known: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM uploads WHERE id = $1)")
                .bind(id.as_bytes())
                .fetch_one(&self.readers)
                .await
                .during("finding an upload")?;
            if !known {
                gone.push(*id);
            }
        }
        Ok(gone)
    }

    async fn opened(&self) -> Result<Opened> {
        Ok(self.opened.clone())
    }

    async fn ping(&self) -> Result<()> {
        let _: i64 = sqlx::query_scalar("SELECT id FROM store")
            .fetch_one(&self.readers)
            .await
            .during("checking that the database answers")?;
        // The writer as well: it stops after a failure that only a restart can judge.
        self.writer.run(Async, |_| Box::pin(async { Ok(()) })).await
    }

    async fn broken(&self) {
        self.writer.stopped().await;
    }

    async fn close(&self) -> Result<()> {
        // Their clients go on after the restart.
        let waiting = self.fresh.drain();
        let (boot_id, idle) = (self.boot_id.clone(), self.times.upload_idle);
        self.writer
            .run(Durable, move |connection| {
                Box::pin(async move {
                    for (upload, created_at) in waiting {
                        insert(connection, &upload, created_at, false, &boot_id, idle).await?;
                    }
                    sqlx::query("UPDATE store SET clean = 1")
                        .execute(connection)
                        .await
                        .during("closing the database")?;
                    Ok(())
                })
            })
            .await?;
        // The last one to close writes the log back and deletes it: that needs the right to write.
        self.readers.close().await;
        self.writer.close().await
    }
}

fn list(keys: &[ObjectName]) -> String {
    let texts: Vec<&str> = keys.iter().map(ObjectName::as_str).collect();
    text_list(&texts)
}
