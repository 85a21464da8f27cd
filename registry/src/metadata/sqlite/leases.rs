//! Leases. One process has the database, so that another's are over when it opens; only their epochs go on.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;

use super::rows::During;
use super::writer::Durability::Async;
use super::{Sqlite, micros, now};
use crate::metadata::{Leases, Result};

#[async_trait]
impl Leases for Sqlite {
    async fn hold_lease(&self, name: &str, holder: &str, life: Duration) -> Result<Option<i64>> {
        let (name, holder, life) = (name.to_owned(), holder.to_owned(), micros(life));
        self.writer
            .run(Async, move |connection| {
                Box::pin(async move { hold(connection, &name, &holder, life).await })
            })
            .await
    }

    async fn release_lease(&self, name: &str, holder: &str) -> Result<()> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        self.writer
            .run(Async, move |connection| {
                Box::pin(async move {
                    sqlx::query("UPDATE leases SET expires_at = 0 WHERE name = $1 AND holder = $2")
                        .bind(name)
                        .bind(holder)
                        .execute(connection)
                        .await
                        .during("releasing a lease")?;
                    Ok(())
                })
            })
            .await
    }
}

async fn hold(connection: &mut SqliteConnection, name: &str, holder: &str, life: i64) -> Result<Option<i64>> {
    let now = now();
    sqlx::query_scalar(
        "INSERT INTO leases (name, holder, epoch, expires_at) VALUES ($1, $2, 1, $3)
         ON CONFLICT (name) DO UPDATE SET
             epoch = CASE WHEN leases.holder = excluded.holder AND leases.expires_at > $4
                 THEN leases.epoch ELSE leases.epoch + 1 END,
             holder = excluded.holder, expires_at = excluded.expires_at
         WHERE leases.holder = excluded.holder OR leases.expires_at <= $4
         RETURNING epoch",
    )
    .bind(name)
    .bind(holder)
    .bind(now + life)
    .bind(now)
    .fetch_optional(connection)
    .await
    .during("holding a lease")
}
