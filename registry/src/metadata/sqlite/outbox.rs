//! The outbox, deliveries, and where the journal stands.

use async_trait::async_trait;
use bytes::Bytes;
use oci::Tag;

use super::rows::{During, corrupt, digest as read_digest, repository as read_repository};
use super::writer::Durability::{Async, Durable};
use super::{Sqlite, now};
use crate::metadata::{Change, Delivery, Event, JournalPosition, JournaledManifest, Outbox, Result};

/// An event with its manifest's bytes, where it has one that is still there.
const EVENTS: &str = "SELECT o.id, o.at, o.repository, o.payload, m.payload FROM outbox o
     LEFT JOIN repositories r ON r.name = o.repository AND r.deleted_at IS NULL
     LEFT JOIN manifests m ON m.repository_id = r.id AND m.digest = o.manifest";

type EventRow = (i64, i64, String, String, Option<Vec<u8>>);

#[async_trait]
impl Outbox for Sqlite {
    async fn events_to_journal(&self, limit: u32) -> Result<Vec<Event>> {
        self.events("journaled", limit).await
    }

    async fn mark_journaled(&self, events: &[i64], head: i64, all_told: bool) -> Result<()> {
        let ids = serde_json::Value::from(events).to_string();
        self.writer
            .run(Durable, move |connection| {
                Box::pin(async move {
                    sqlx::query(
                        "UPDATE store SET journal_head = max(journal_head, $2);
                         DELETE FROM outbox WHERE (fanned_out = 1 OR $3) AND id IN (SELECT value FROM json_each($1));
                         UPDATE outbox SET journaled = 1 WHERE id IN (SELECT value FROM json_each($1))",
                    )
                    .bind(ids)
                    .bind(head)
                    .bind(all_told)
                    .execute(connection)
                    .await
                    .during("marking events as journaled")?;
                    Ok(())
                })
            })
            .await
    }

    async fn events_to_fan_out(&self, limit: u32) -> Result<Vec<Event>> {
        self.events("fanned_out", limit).await
    }

    async fn fan_out(&self, events: &[i64], deliveries: Vec<(String, String)>) -> Result<()> {
        let ids = serde_json::Value::from(events).to_string();
        let deliveries = serde_json::to_string(&deliveries).unwrap_or_default();
        self.writer
            .run(Durable, move |connection| {
                Box::pin(async move {
                    sqlx::query(
                        "INSERT INTO webhook_deliveries (endpoint, event, due_at)
                             SELECT value ->> 0, value ->> 1, $3 FROM json_each($2);
                         DELETE FROM outbox WHERE journaled = 1 AND id IN (SELECT value FROM json_each($1));
                         UPDATE outbox SET fanned_out = 1 WHERE id IN (SELECT value FROM json_each($1))",
                    )
                    .bind(ids)
                    .bind(deliveries)
                    .bind(now())
                    .execute(connection)
                    .await
                    .during("making deliveries of events")?;
                    Ok(())
                })
            })
            .await
    }

    async fn due_deliveries(&self, endpoint: &str, limit: u32) -> Result<Vec<Delivery>> {
        let rows: Vec<(i64, String, u32)> = sqlx::query_as(
            "SELECT id, event, attempts FROM webhook_deliveries
             WHERE endpoint = $1 AND due_at <= $2 ORDER BY due_at, id LIMIT $3",
        )
        .bind(endpoint)
        .bind(now())
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .during("finding due deliveries")?;
        let deliveries = rows
            .into_iter()
            .map(|(id, body, attempts)| Delivery { id, body, attempts });
        Ok(deliveries.collect())
    }

    async fn finish_delivery(&self, id: i64) -> Result<()> {
        self.writer
            .run(Async, move |connection| {
                Box::pin(async move {
                    sqlx::query("DELETE FROM webhook_deliveries WHERE id = $1")
                        .bind(id)
                        .execute(connection)
                        .await
                        .during("finishing a delivery")?;
                    Ok(())
                })
            })
            .await
    }

    async fn retry_delivery(&self, id: i64, delay_micros: i64) -> Result<()> {
        self.writer
            .run(Async, move |connection| {
                Box::pin(async move {
                    sqlx::query(
                        "UPDATE webhook_deliveries SET attempts = attempts + 1, due_at = $2 WHERE id = $1",
                    )
                    .bind(id)
                    .bind(now() + delay_micros)
                    .execute(connection)
                    .await
                    .during("putting off a delivery")?;
                    Ok(())
                })
            })
            .await
    }

    async fn journal_position(&self) -> Result<JournalPosition> {
        let (head, last_event): (i64, i64) = sqlx::query_as(
            "SELECT journal_head, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'outbox'), 0) FROM store",
        )
        .fetch_one(&self.readers)
        .await
        .during("reading the journal's position")?;
        Ok(JournalPosition { head, last_event })
    }

    async fn manifests_after(&self, after: i64, limit: u32) -> Result<Vec<(i64, JournaledManifest)>> {
        type Row = (i64, String, Vec<u8>, String, Vec<u8>, String, i64, String);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT m.id, r.name, m.digest, m.media_type, m.payload, m.pushed_by, m.pushed_at,
                 (SELECT json_group_array(t.name) FROM tags t
                  WHERE t.repository_id = m.repository_id AND t.manifest_id = m.id)
             FROM manifests m JOIN repositories r ON r.id = m.repository_id
             WHERE m.id > $1 AND m.deleted_at IS NULL AND r.deleted_at IS NULL ORDER BY m.id LIMIT $2",
        )
        .bind(after)
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .during("reading manifests for a snapshot")?;
        rows.into_iter()
            .map(|(id, repository, digest, media_type, payload, actor, at, tags)| {
                let tags: Vec<Tag> = serde_json::from_str(&tags).map_err(corrupt("tag"))?;
                let manifest = JournaledManifest {
                    repository: read_repository(&repository)?,
                    digest: read_digest(&digest)?,
                    media_type,
                    payload: Bytes::from(payload),
                    tags,
                    actor,
                    at,
                };
                Ok((id, manifest))
            })
            .collect()
    }
}

impl Sqlite {
    async fn events(&self, lacking: &'static str, limit: u32) -> Result<Vec<Event>> {
        let query = format!("{EVENTS} WHERE o.{lacking} = 0 ORDER BY o.id LIMIT $1");
        let rows: Vec<EventRow> = sqlx::query_as(sqlx::AssertSqlSafe(query))
            .bind(limit)
            .fetch_all(&self.readers)
            .await
            .during("reading the outbox")?;
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
