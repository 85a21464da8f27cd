//! The builder's step cache.

use async_trait::async_trait;
use oci::{Digest, RepoName};
use sqlx::sqlite::SqliteConnection;

use super::rows::{During, digest_list, ensure_repository, listed_digest, repository_id, text_list};
use super::writer::Durability::Async;
use super::{Sqlite, now};
use crate::metadata::{CacheRecords, Result};

/// How exactly `last_used` is kept: one write a record and hour at most.
const LAST_USED_STEP_MICROS: i64 = 3_600_000_000;

/// `$1` the repository's name, `$2` keys.
pub(super) const RECORDS: &str = "SELECT c.key, c.result, c.last_used FROM repositories r
     JOIN json_each($2) j
     JOIN cache_records c ON c.repository_id = r.id AND c.key = j.value
     WHERE r.name = $1 AND r.deleted_at IS NULL";
/// `$1` the repository's name, `$2` keys.
pub(super) const MEMOS: &str = "SELECT c.key, c.value FROM repositories r
     JOIN json_each($2) j
     JOIN cache_memos c ON c.repository_id = r.id AND c.key = j.value
     WHERE r.name = $1 AND r.deleted_at IS NULL";

#[async_trait]
impl CacheRecords for Sqlite {
    async fn find_cache_records(
        &self,
        repository: &RepoName,
        keys: &[String],
    ) -> Result<Vec<(String, String)>> {
        let found: Vec<(String, String, i64)> = sqlx::query_as(RECORDS)
            .bind(repository.as_str())
            .bind(text_list(keys))
            .fetch_all(&self.readers)
            .await
            .during("finding cache records")?;
        let stale = now() - LAST_USED_STEP_MICROS;
        let used: Vec<&str> = found
            .iter()
            .filter(|(_, _, last)| *last < stale)
            .map(|(key, ..)| key.as_str())
            .collect();
        if !used.is_empty() {
            self.mark_used(repository, text_list(&used)).await?;
        }
        Ok(found.into_iter().map(|(key, result, _)| (key, result)).collect())
    }

    async fn put_cache_record(
        &self,
        repository: &RepoName,
        key: &str,
        result: &str,
        blobs: &[Digest],
    ) -> Result<Vec<Digest>> {
        let record = Record {
            repository: repository.clone(),
            key: key.to_owned(),
            result: result.to_owned(),
            blobs: blobs.to_vec(),
        };
        let review_delay = self.times.review_delay;
        self.writer
            .run(Async, move |connection| {
                Box::pin(put_record(connection, record, review_delay))
            })
            .await
    }

    async fn find_memos(&self, repository: &RepoName, keys: &[String]) -> Result<Vec<(String, String)>> {
        sqlx::query_as(MEMOS)
            .bind(repository.as_str())
            .bind(text_list(keys))
            .fetch_all(&self.readers)
            .await
            .during("finding memos")
    }

    async fn put_memo(&self, repository: &RepoName, key: &str, value: &str) -> Result<()> {
        let (repository, key, value) = (repository.clone(), key.to_owned(), value.to_owned());
        self.writer
            .run(Async, move |connection| {
                Box::pin(async move {
                    let repository = ensure_repository(connection, &repository).await?;
                    sqlx::query(
                        "INSERT INTO cache_memos (repository_id, key, value, last_used) VALUES ($1, $2, $3, $4)
                         ON CONFLICT DO UPDATE SET value = excluded.value, last_used = excluded.last_used",
                    )
                    .bind(repository)
                    .bind(key)
                    .bind(value)
                    .bind(now())
                    .execute(connection)
                    .await
                    .during("storing a memo")?;
                    Ok(())
                })
            })
            .await
    }
}

impl Sqlite {
    async fn mark_used(&self, repository: &RepoName, keys: String) -> Result<()> {
        let repository = repository.clone();
        self.writer
            .run(Async, move |connection| {
                Box::pin(async move {
                    let Some(repository) = repository_id(connection, &repository).await? else {
                        return Ok(());
                    };
                    sqlx::query(
                        "UPDATE cache_records SET last_used = $3
                         WHERE repository_id = $1 AND key IN (SELECT value FROM json_each($2))",
                    )
                    .bind(repository)
                    .bind(keys)
                    .bind(now())
                    .execute(connection)
                    .await
                    .during("marking cache records used")?;
                    Ok(())
                })
            })
            .await
    }
}

struct Record {
    repository: RepoName,
    key: String,
    result: String,
    blobs: Vec<Digest>,
}

async fn put_record(
    connection: &mut SqliteConnection,
    record: Record,
    review_delay: i64,
) -> Result<Vec<Digest>> {
    // Whoever keeps a record pushed its layer: without the repository there is nothing to pin.
    let Some(repository) = repository_id(connection, &record.repository).await? else {
        return Ok(record.blobs);
    };
    let blobs = digest_list(&record.blobs);
    let missing: Vec<String> = sqlx::query_scalar(
        "SELECT j.value FROM json_each($2) j WHERE NOT EXISTS (
             SELECT 1 FROM blobs b JOIN repository_blobs l
                 ON l.repository_id = $1 AND l.blob_id = b.id AND l.hidden = 0
             WHERE b.digest = unhex(j.value) AND b.state = 0)",
    )
    .bind(repository)
    .bind(&blobs)
    .fetch_all(&mut *connection)
    .await
    .during("checking a cache record's blobs")?;
    if !missing.is_empty() {
        return missing.iter().map(|hex| listed_digest(hex)).collect();
    }
    sqlx::query(
        "INSERT INTO cache_records (repository_id, key, result, last_used) VALUES ($1, $2, $3, $4)
             ON CONFLICT DO UPDATE SET result = excluded.result, last_used = excluded.last_used;
         UPDATE repository_blobs SET review_at = $6, review_reason = 'cache replaced'
             WHERE repository_id = $1 AND review_at IS NULL
             AND blob_id IN (SELECT blob_id FROM cache_record_blobs WHERE repository_id = $1 AND key = $2);
         DELETE FROM cache_record_blobs WHERE repository_id = $1 AND key = $2;
         INSERT INTO cache_record_blobs (repository_id, key, blob_id)
             SELECT DISTINCT $1, $2, b.id FROM json_each($5) j JOIN blobs b ON b.digest = unhex(j.value)",
    )
    .bind(repository)
    .bind(record.key)
    .bind(record.result)
    .bind(now())
    .bind(blobs)
    .bind(now() + review_delay)
    .execute(connection)
    .await
    .during("storing a cache record")?;
    Ok(Vec::new())
}
