//! The builder's step cache.

use async_trait::async_trait;
use oci::{Digest, RepoName};
use sqlx::postgres::PgConnection;

use super::Durability::Async;
use super::collection::now;
use super::manifests::{MISSING_BLOBS, missing};
use super::rows::{During, digest_list, ensure_repository, lock_repository};
use super::transaction::commit;
use super::{Postgres, links};
use crate::metadata::{CacheRecords, Result};

/// How exactly `last_used` is kept: one write a record and hour at most.
const LAST_USED_STEP_MICROS: i64 = 3_600_000_000;

pub(super) const RECORDS: &str = "SELECT c.key, c.result, c.last_used < now_micros() - $3
     FROM repositories r CROSS JOIN unnest($2::text[]) AS q (key) CROSS JOIN LATERAL (
         SELECT * FROM cache_records WHERE repository_id = r.id AND key = q.key LIMIT 1) c
     WHERE r.name = $1 AND r.deleted_at IS NULL";

pub(super) const MEMOS: &str = "SELECT c.key, c.value
     FROM repositories r CROSS JOIN unnest($2::text[]) AS q (key) CROSS JOIN LATERAL (
         SELECT * FROM cache_memos WHERE repository_id = r.id AND key = q.key LIMIT 1) c
     WHERE r.name = $1 AND r.deleted_at IS NULL";

#[async_trait]
impl CacheRecords for Postgres {
    async fn find_cache_records(
        &self,
        repository: &RepoName,
        keys: &[String],
    ) -> Result<Vec<(String, String)>> {
        let found: Vec<(String, String, bool)> = self
            .retrying(|| async {
                sqlx::query_as(RECORDS)
                    .bind(repository.as_str())
                    .bind(keys)
                    .bind(LAST_USED_STEP_MICROS)
                    .fetch_all(&self.pool())
                    .await
                    .during("finding cache records")
            })
            .await?;
        let stale = found.iter().filter(|(_, _, stale)| *stale);
        let used: Vec<&str> = stale.map(|(key, ..)| key.as_str()).collect();
        if !used.is_empty() {
            self.mark_used(repository, &used).await?;
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
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            let delay = self.times.review_delay;
            let missing = put_record(&mut tx, repository, (key, result), blobs, delay).await?;
            commit(tx).await?;
            Ok(missing)
        })
        .await
    }

    async fn find_memos(&self, repository: &RepoName, keys: &[String]) -> Result<Vec<(String, String)>> {
        self.retrying(|| async {
            sqlx::query_as(MEMOS)
                .bind(repository.as_str())
                .bind(keys)
                .fetch_all(&self.pool())
                .await
                .during("finding memos")
        })
        .await
    }

    async fn put_memo(&self, repository: &RepoName, key: &str, value: &str) -> Result<()> {
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            let repository = ensure_repository(&mut tx, repository).await?;
            sqlx::query(
                "INSERT INTO cache_memos (repository_id, key, value, last_used) VALUES ($1, $2, $3, now_micros())
                 ON CONFLICT (repository_id, key)
                     DO UPDATE SET value = excluded.value, last_used = excluded.last_used",
            )
            .bind(repository)
            .bind(key)
            .bind(value)
            .execute(&mut *tx)
            .await
            .during("storing a memo")?;
            commit(tx).await
        })
        .await
    }
}

impl Postgres {
    async fn mark_used(&self, repository: &RepoName, keys: &[&str]) -> Result<()> {
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            sqlx::query(
                "UPDATE cache_records c SET last_used = now_micros() FROM repositories r
                 WHERE r.name = $1 AND r.deleted_at IS NULL AND c.repository_id = r.id AND c.key = ANY($2::text[])",
            )
            .bind(repository.as_str())
            .bind(keys)
            .execute(&mut *tx)
            .await
            .during("marking cache records used")?;
            commit(tx).await
        })
        .await
    }
}

async fn put_record(
    connection: &mut PgConnection,
    repository: &RepoName,
    (key, result): (&str, &str),
    blobs: &[Digest],
    review_delay: i64,
) -> Result<Vec<Digest>> {
    // Whoever keeps a record pushed its layer: without the repository there is nothing to pin. The mutex keeps the
    // blobs from being hidden between the check and the commit.
    let Some(repository) = lock_repository(connection, repository).await? else {
        return Ok(blobs.to_vec());
    };
    links::hold(connection, repository, blobs).await?;
    let missing = missing(connection, MISSING_BLOBS, repository, blobs).await?;
    if !missing.is_empty() {
        return Ok(missing);
    }
    sqlx::query(
        "INSERT INTO cache_records (repository_id, key, result, last_used) VALUES ($1, $2, $3, now_micros())
         ON CONFLICT (repository_id, key) DO UPDATE SET result = excluded.result, last_used = excluded.last_used",
    )
    .bind(repository)
    .bind(key)
    .bind(result)
    .execute(&mut *connection)
    .await
    .during("storing a cache record")?;
    let replaced = pinned(connection, repository, key).await?;
    if !replaced.is_empty() {
        let review_at = now(&mut *connection).await? + review_delay;
        links::review(connection, repository, &replaced, review_at, "cache replaced").await?;
        sqlx::query("DELETE FROM cache_record_blobs WHERE repository_id = $1 AND key = $2")
            .bind(repository)
            .bind(key)
            .execute(&mut *connection)
            .await
            .during("replacing a cache record")?;
    }
    sqlx::query(
        "INSERT INTO cache_record_blobs (repository_id, key, blob_id)
         SELECT DISTINCT $1, $2, b.id FROM unnest($3::bytea[]) AS q (digest)
         JOIN blobs b ON b.digest = q.digest ORDER BY b.id",
    )
    .bind(repository)
    .bind(key)
    .bind(digest_list(blobs))
    .execute(connection)
    .await
    .during("pinning a cache record's blobs")?;
    Ok(Vec::new())
}

/// The blobs that a cache record pins.
pub(super) async fn pinned(connection: &mut PgConnection, repository: i64, key: &str) -> Result<Vec<i64>> {
    sqlx::query_scalar("SELECT blob_id FROM cache_record_blobs WHERE repository_id = $1 AND key = $2")
        .bind(repository)
        .bind(key)
        .fetch_all(connection)
        .await
        .during("finding a cache record's blobs")
}
