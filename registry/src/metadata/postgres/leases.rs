//! Leases, by the server's clock.

use std::time::Duration;

use async_trait::async_trait;

use super::Durability::Async;
use super::Postgres;
use super::rows::During;
use super::transaction::commit;
use crate::metadata::values::micros;
use crate::metadata::{Leases, Result};

#[async_trait]
impl Leases for Postgres {
    async fn hold_lease(&self, name: &str, holder: &str, life: Duration) -> Result<Option<i64>> {
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            let epoch = sqlx::query_scalar(
                "INSERT INTO leases AS l (name, holder, epoch, expires_at) VALUES ($1, $2, 1, now_micros() + $3)
                 ON CONFLICT (name) DO UPDATE SET
                     epoch = CASE WHEN l.holder = excluded.holder AND l.expires_at > now_micros()
                         THEN l.epoch ELSE l.epoch + 1 END,
                     holder = excluded.holder, expires_at = excluded.expires_at
                 WHERE l.holder = excluded.holder OR l.expires_at <= now_micros()
                 RETURNING epoch",
            )
            .bind(name)
            .bind(holder)
            .bind(micros(life))
            .fetch_optional(&mut *tx)
            .await
            .during("holding a lease")?;
            commit(tx).await?;
            Ok(epoch)
        })
        .await
    }

    async fn release_lease(&self, name: &str, holder: &str) -> Result<()> {
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            sqlx::query("UPDATE leases SET expires_at = 0 WHERE name = $1 AND holder = $2")
                .bind(name)
                .bind(holder)
                .execute(&mut *tx)
                .await
                .during("releasing a lease")?;
            commit(tx).await
        })
        .await
    }
}
