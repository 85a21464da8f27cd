//! The outbox, deliveries, and where the journal stands.
//!
//! Rows are written under the repository's mutex, so that those of one repository have their ids in the order of their
//! commits; over all repositories an id may become visible after a higher one, which is why nobody keeps a cursor.

use async_trait::async_trait;
use bytes::Bytes;
use oci::Tag;
use sqlx::postgres::PgConnection;

use super::Durability::{Async, Durable};
use super::Postgres;
use super::rows::{During, corrupt, digest as read_digest, repository as read_repository};
use super::transaction::commit;
use crate::metadata::{Change, Delivery, Event, JournalPosition, JournaledManifest, Outbox, Result};

/// Events with their manifests' bytes, where those are still there.
pub(super) const TO_JOURNAL: &str = "SELECT o.id, o.at, o.repository, o.payload, m.payload FROM (
         SELECT * FROM outbox WHERE journaled = 0 ORDER BY id LIMIT $1) o
     LEFT JOIN LATERAL (
         SELECT m.payload FROM repositories r JOIN manifests m ON m.repository_id = r.id AND m.digest = o.manifest
         WHERE r.name = o.repository AND r.deleted_at IS NULL LIMIT 1) m ON true
     ORDER BY o.id";
pub(super) const TO_FAN_OUT: &str = "SELECT o.id, o.at, o.repository, o.payload, m.payload FROM (
         SELECT * FROM outbox WHERE fanned_out = 0 ORDER BY id LIMIT $1) o
     LEFT JOIN LATERAL (
         SELECT m.payload FROM repositories r JOIN manifests m ON m.repository_id = r.id AND m.digest = o.manifest
         WHERE r.name = o.repository AND r.deleted_at IS NULL LIMIT 1) m ON true
     ORDER BY o.id";
pub(super) const DUE: &str = "SELECT id, event, attempts FROM webhook_deliveries
     WHERE endpoint = $1 AND due_at <= now_micros() ORDER BY due_at, id LIMIT $2";

type EventRow = (i64, i64, String, String, Option<Vec<u8>>);

#[async_trait]
impl Outbox for Postgres {
    async fn events_to_journal(&self, limit: u32) -> Result<Vec<Event>> {
        self.events(TO_JOURNAL, limit).await
    }

    async fn mark_journaled(&self, events: &[i64], head: i64, all_told: bool) -> Result<()> {
        self.retrying(|| async {
            let mut tx = self.begin(Durable).await?;
            sqlx::query("UPDATE store SET journal_head = greatest(journal_head, $1)")
                .bind(head)
                .execute(&mut *tx)
                .await
                .during("recording how far the journal goes")?;
            for sql in [
                "DELETE FROM outbox WHERE (fanned_out = 1 OR $2) AND id = ANY($1)",
                "UPDATE outbox SET journaled = 1 WHERE NOT $2 AND id = ANY($1)",
            ] {
                sqlx::query(sql)
                    .bind(events)
                    .bind(all_told)
                    .execute(&mut *tx)
                    .await
                    .during("marking events as journaled")?;
            }
            commit(tx).await
        })
        .await
    }

    async fn events_to_fan_out(&self, limit: u32) -> Result<Vec<Event>> {
        self.events(TO_FAN_OUT, limit).await
    }

    async fn fan_out(&self, events: &[i64], deliveries: Vec<(String, String)>) -> Result<()> {
        let (endpoints, bodies): (Vec<String>, Vec<String>) = deliveries.into_iter().unzip();
        self.retrying(|| async {
            let mut tx = self.begin(Durable).await?;
            sqlx::query(
                "INSERT INTO webhook_deliveries (endpoint, event, due_at)
                 SELECT q.endpoint, q.event, now_micros() FROM unnest($1::text[], $2::text[]) AS q (endpoint, event)",
            )
            .bind(&endpoints)
            .bind(&bodies)
            .execute(&mut *tx)
            .await
            .during("making deliveries of events")?;
            for sql in [
                "DELETE FROM outbox WHERE journaled = 1 AND id = ANY($1)",
                "UPDATE outbox SET fanned_out = 1 WHERE id = ANY($1)",
            ] {
                sqlx::query(sql)
                    .bind(events)
                    .execute(&mut *tx)
                    .await
                    .during("marking events as told")?;
            }
            commit(tx).await
        })
        .await
    }

    async fn due_deliveries(&self, endpoint: &str, limit: u32) -> Result<Vec<Delivery>> {
        let rows: Vec<(i64, String, i64)> = self
            .retrying(|| async {
                sqlx::query_as(DUE)
                    .bind(endpoint)
                    .bind(i64::from(limit))
                    .fetch_all(&self.pool())
                    .await
                    .during("finding due deliveries")
            })
            .await?;
        let delivery = |(id, body, attempts): (i64, String, i64)| Delivery {
            id,
            body,
            attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
        };
        Ok(rows.into_iter().map(delivery).collect())
    }

    async fn finish_delivery(&self, id: i64) -> Result<()> {
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            sqlx::query("DELETE FROM webhook_deliveries WHERE id = $1")
                .bind(id)
                .execute(&mut *tx)
                .await
                .during("finishing a delivery")?;
            commit(tx).await
        })
        .await
    }

    async fn retry_delivery(&self, id: i64, delay_micros: i64) -> Result<()> {
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            sqlx::query(
                "UPDATE webhook_deliveries SET attempts = attempts + 1, due_at = now_micros() + $2 WHERE id = $1",
            )
            .bind(id)
            .bind(delay_micros)
            .execute(&mut *tx)
            .await
            .during("putting off a delivery")?;
            commit(tx).await
        })
        .await
    }

    async fn journal_position(&self) -> Result<JournalPosition> {
        let (head, last_event): (i64, i64) = self
            .retrying(|| async {
                sqlx::query_as(
                    "SELECT journal_head,
                         coalesce(pg_sequence_last_value(pg_get_serial_sequence('outbox', 'id')::regclass), 0)
                     FROM store",
                )
                .fetch_one(&self.pool())
                .await
                .during("reading the journal's position")
            })
            .await?;
        Ok(JournalPosition { head, last_event })
    }

    async fn manifests_after(&self, after: i64, limit: u32) -> Result<Vec<(i64, JournaledManifest)>> {
        type Row = (i64, String, Vec<u8>, String, Vec<u8>, String, i64, Vec<String>);
        let rows: Vec<Row> = self
            .retrying(|| async {
                sqlx::query_as(
                    "SELECT m.id, r.name, m.digest, m.media_type, m.payload, m.pushed_by, m.pushed_at,
                         ARRAY(SELECT t.name FROM tags t
                             WHERE t.repository_id = m.repository_id AND t.manifest_id = m.id)
                     FROM manifests m JOIN repositories r ON r.id = m.repository_id
                     WHERE m.id > $1 AND m.deleted_at IS NULL AND r.deleted_at IS NULL ORDER BY m.id LIMIT $2",
                )
                .bind(after)
                .bind(i64::from(limit))
                .fetch_all(&self.pool())
                .await
                .during("reading manifests for a snapshot")
            })
            .await?;
        rows.into_iter()
            .map(|(id, repository, digest, media_type, payload, actor, at, tags)| {
                let tag = |name: &String| name.parse::<Tag>().map_err(corrupt("tag"));
                let manifest = JournaledManifest {
                    repository: read_repository(&repository)?,
                    digest: read_digest(&digest)?,
                    media_type,
                    payload: Bytes::from(payload),
                    tags: tags.iter().map(tag).collect::<Result<_>>()?,
                    actor,
                    at,
                };
                Ok((id, manifest))
            })
            .collect()
    }
}

impl Postgres {
    async fn events(&self, sql: &'static str, limit: u32) -> Result<Vec<Event>> {
        let rows: Vec<EventRow> = self
            .retrying(|| async {
                sqlx::query_as(sql)
                    .bind(i64::from(limit))
                    .fetch_all(&self.pool())
                    .await
                    .during("reading the outbox")
            })
            .await?;
        rows.into_iter()
            .map(|(id, at, repository, change, payload)| {
                Ok(Event {
                    id,
                    at,
                    repository: read_repository(&repository)?,
                    change: serde_json::from_str::<Change>(&change).map_err(corrupt("event"))?,
                    payload: payload.map(Bytes::from),
                })
            })
            .collect()
    }
}

/// Tells of a change in the transaction that makes it.
pub(super) async fn tell(connection: &mut PgConnection, repository: i64, change: &Change) -> Result<()> {
    sqlx::query(
        "INSERT INTO outbox (kind, repository, manifest, payload, at)
         SELECT $2, name, $3, $4, now_micros() FROM repositories WHERE id = $1",
    )
    .bind(repository)
    .bind(change.kind())
    .bind(change.digest().to_bytes())
    .bind(change.to_json())
    .execute(connection)
    .await
    .during("telling of a change")?;
    Ok(())
}
