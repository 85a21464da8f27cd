//! The workers of garbage collection. Each decision is a transaction of its own: it locks first and asks in later
//! statements, which then see everything that was committed before the lock. Workers of several replicas may run at
//! once.

use std::time::Duration;

use async_trait::async_trait;
use oci::{Digest, RepoName};
use sqlx::postgres::{PgConnection, PgExecutor};

use super::Durability::Async;
use super::cache::pinned;
use super::purge::{Purge, doom_unlinked, unlink};
use super::rows::{During, size, stored_size};
use super::transaction::commit;
use super::{Postgres, links};
use crate::metadata::Result;
use crate::metadata::collection::{
    Collection, Explain, ExplainPage, Fate, Pulls, ReviewQueue, Reviewed, clock_fault, pages, sql,
};
use crate::metadata::values::{Times, micros};

/// Decisions of one call.
const BATCH: i64 = 50;

#[async_trait]
impl Collection for Postgres {
    async fn begin_collection(&self) -> Result<Option<String>> {
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            let paused = begin(&mut tx).await?;
            commit(tx).await?;
            Ok(paused)
        })
        .await
    }

    async fn collection_paused(&self) -> Result<Option<String>> {
        self.retrying(|| async {
            sqlx::query_scalar("SELECT gc_paused FROM store")
                .fetch_one(&self.pool())
                .await
                .during("reading whether collection is paused")
        })
        .await
    }

    async fn confirm_collection(&self) -> Result<()> {
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            sqlx::query("UPDATE store SET gc_paused = NULL, last_seen = now_micros()")
                .execute(&mut *tx)
                .await
                .during("confirming collection")?;
            commit(tx).await
        })
        .await
    }

    async fn review_manifests(&self) -> Result<Reviewed> {
        let mut reviewed = Reviewed::default();
        for (repository, id) in self.due(sql::DUE_MANIFESTS).await? {
            let decided = self
                .retrying(|| async {
                    let mut tx = self.begin(Async).await?;
                    let decided = review_manifest(&mut tx, repository, id, self.times).await?;
                    commit(tx).await?;
                    Ok(decided)
                })
                .await?;
            add(&mut reviewed, decided);
        }
        Ok(reviewed)
    }

    async fn review_links(&self) -> Result<Reviewed> {
        let mut reviewed = Reviewed::default();
        for (repository, blob) in self.due(sql::DUE_LINKS).await? {
            let decided = self
                .retrying(|| async {
                    let mut tx = self.begin(Async).await?;
                    let decided = review_link(&mut tx, repository, blob, self.times).await?;
                    commit(tx).await?;
                    Ok(decided)
                })
                .await?;
            add(&mut reviewed, decided);
        }
        Ok(reviewed)
    }

    async fn expire_cache(&self, unused: Duration, limit: u32) -> Result<u64> {
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            let expired = expire_cache(&mut tx, micros(unused), limit, self.times).await?;
            commit(tx).await?;
            Ok(expired)
        })
        .await
    }

    async fn hold(&self, repository: &RepoName, digest: &Digest, holder: &str, life: Duration) -> Result<()> {
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            sqlx::query(
                "INSERT INTO holds (repository_id, digest, holder, until)
                     SELECT id, $2, $3, now_micros() + $4 FROM repositories WHERE name = $1 AND deleted_at IS NULL
                 ON CONFLICT (repository_id, digest, holder)
                     DO UPDATE SET until = greatest(holds.until, excluded.until)",
            )
            .bind(repository.as_str())
            .bind(digest.to_bytes())
            .bind(holder)
            .bind(micros(life))
            .execute(&mut *tx)
            .await
            .during("holding a manifest")?;
            commit(tx).await
        })
        .await
    }

    async fn forget(&self, history: Duration, limit: u32) -> Result<u64> {
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            let now = now(&mut *tx).await?;
            let mut forgotten = 0;
            for (statement, before) in [
                (sql::EXPIRE_HOLDS, now),
                (sql::FORGET_TAG_EVENTS, now - micros(history)),
            ] {
                forgotten += sqlx::query(statement)
                    .bind(before)
                    .bind(i64::from(limit))
                    .execute(&mut *tx)
                    .await
                    .during("forgetting what is over")?
                    .rows_affected();
            }
            commit(tx).await?;
            Ok(forgotten)
        })
        .await
    }

    async fn review_queue(&self) -> Result<ReviewQueue> {
        self.retrying(|| async {
            let now = now(&self.pool()).await?;
            let (manifests, oldest_manifest): (i64, Option<i64>) = sqlx::query_as(sql::COUNT_DUE_MANIFESTS)
                .bind(now)
                .fetch_one(&self.pool())
                .await
                .during("counting manifests to review")?;
            let (links, oldest_link): (i64, Option<i64>) = sqlx::query_as(sql::COUNT_DUE_LINKS)
                .bind(now)
                .fetch_one(&self.pool())
                .await
                .during("counting links to review")?;
            let oldest = oldest_manifest.into_iter().chain(oldest_link).min();
            Ok(ReviewQueue {
                manifests: size(manifests),
                links: size(links),
                oldest_micros: oldest.map_or(0, |at| size(now - at)),
            })
        })
        .await
    }

    async fn explain(&self, question: Explain) -> Result<ExplainPage> {
        pages::explain(self, question).await
    }

    async fn record_pulls(&self, pulls: Vec<Pulls>) -> Result<()> {
        for part in pulls.chunks(BATCH as usize) {
            self.retrying(|| async {
                let mut tx = self.begin(Async).await?;
                record_pulls(&mut tx, part).await?;
                commit(tx).await
            })
            .await?;
        }
        Ok(())
    }
}

impl Postgres {
    /// Candidates, not locked.
    async fn due(&self, candidates: &'static str) -> Result<Vec<(i64, i64)>> {
        self.retrying(|| async {
            sqlx::query_as(candidates)
                .bind(now(&self.pool()).await?)
                .bind(BATCH)
                .fetch_all(&self.pool())
                .await
                .during("finding reviews that are due")
        })
        .await
    }
}

/// The server's clock.
pub(super) async fn now<'e>(connection: impl PgExecutor<'e>) -> Result<i64> {
    sqlx::query_scalar("SELECT now_micros()")
        .fetch_one(connection)
        .await
        .during("reading the clock")
}

fn add(total: &mut Reviewed, decided: Reviewed) {
    total.decided += decided.decided;
    total.removed.extend(decided.removed);
    total.kept.extend(decided.kept);
    total.doomed += decided.doomed;
    total.doomed_bytes += decided.doomed_bytes;
}

async fn begin(connection: &mut PgConnection) -> Result<Option<String>> {
    let (last_seen, paused, now): (i64, Option<String>, i64) =
        sqlx::query_as("SELECT last_seen, gc_paused, now_micros() FROM store FOR NO KEY UPDATE")
            .fetch_one(&mut *connection)
            .await
            .during("reading when collection ran last")?;
    if paused.is_some() {
        return Ok(paused);
    }
    let fault = clock_fault(last_seen, now);
    sqlx::query("UPDATE store SET gc_paused = $1, last_seen = $2")
        .bind(&fault)
        .bind(if fault.is_some() { last_seen } else { now })
        .execute(connection)
        .await
        .during("noting that collection runs")?;
    Ok(fault)
}

async fn review_manifest(
    connection: &mut PgConnection,
    repository: i64,
    id: i64,
    times: Times,
) -> Result<Reviewed> {
    let mut reviewed = Reviewed::default();
    // The mutex: what may refer to the manifest does not change until the commit. Then the row itself, which a look-up
    // may have put off meanwhile.
    for lock in [
        "SELECT id FROM repositories WHERE id = $1 AND $2 > 0 FOR NO KEY UPDATE",
        "SELECT id FROM manifests WHERE repository_id = $1 AND id = $2 AND review_at <= now_micros() FOR UPDATE",
    ] {
        let locked: Option<i64> = sqlx::query_scalar(lock)
            .bind(repository)
            .bind(id)
            .fetch_optional(&mut *connection)
            .await
            .during("locking a manifest to review")?;
        if locked.is_none() {
            return Ok(reviewed);
        }
    }
    let now = now(&mut *connection).await?;
    let Some(found) = super::explain::manifest(&mut *connection, id, now, times).await? else {
        return Ok(reviewed);
    };
    let verdict = found.facts.verdict();
    reviewed.decided = 1;
    if verdict.fate == Fate::Remove {
        let purge = Purge {
            repository,
            id,
            digest: found.item.digest,
            size: stored_size(found.item.size),
            counted: found.facts.deleted_at.is_none(),
            review_at: now + times.review_delay,
        };
        purge.run(connection).await?;
        reviewed.removed.push((found.item.repository, found.item.digest));
        return Ok(reviewed);
    }
    sqlx::query(sql::KEEP_MANIFEST)
        .bind(id)
        .bind(verdict.review_at())
        .execute(connection)
        .await
        .during("keeping a manifest")?;
    reviewed.kept.extend(verdict.reason.map(|reason| reason.word()));
    Ok(reviewed)
}

async fn review_link(
    connection: &mut PgConnection,
    repository: i64,
    blob: i64,
    times: Times,
) -> Result<Reviewed> {
    let mut reviewed = Reviewed::default();
    // Whoever is about to link the blob holds its row: then it is no time to decide.
    for lock in [
        "SELECT id FROM blobs WHERE id = $2 AND $1 > 0 FOR UPDATE SKIP LOCKED",
        "SELECT blob_id FROM repository_blobs WHERE repository_id = $1 AND blob_id = $2 AND review_at <= now_micros()
         FOR UPDATE",
    ] {
        let locked: Option<i64> = sqlx::query_scalar(lock)
            .bind(repository)
            .bind(blob)
            .fetch_optional(&mut *connection)
            .await
            .during("locking a link to review")?;
        if locked.is_none() {
            return Ok(reviewed);
        }
    }
    let Some(found) = super::explain::link(&mut *connection, repository, blob).await? else {
        return Ok(reviewed);
    };
    let verdict = found.item.verdict;
    reviewed.decided = 1;
    if verdict.fate == Fate::Remove {
        unlink(connection, repository, blob, stored_size(found.item.size)).await?;
        if let Some(bytes) = doom_unlinked(connection, blob, times.delete_delay).await? {
            reviewed.doomed = 1;
            reviewed.doomed_bytes = bytes;
        }
        reviewed.removed.push((found.item.repository, found.item.digest));
        return Ok(reviewed);
    }
    sqlx::query(sql::KEEP_LINK)
        .bind(repository)
        .bind(blob)
        .bind(verdict.review_at())
        .execute(connection)
        .await
        .during("keeping a link")?;
    reviewed.kept.extend(verdict.reason.map(|reason| reason.word()));
    Ok(reviewed)
}

async fn expire_cache(connection: &mut PgConnection, unused: i64, limit: u32, times: Times) -> Result<u64> {
    let now = now(&mut *connection).await?;
    let before = now - unused;
    let stale: Vec<(i64, String)> = sqlx::query_as(sql::STALE_RECORDS)
        .bind(before)
        .bind(i64::from(limit))
        .fetch_all(&mut *connection)
        .await
        .during("finding unused cache records")?;
    for (repository, key) in &stale {
        let pinned = pinned(&mut *connection, *repository, key).await?;
        let review_at = now + times.review_delay;
        links::review(connection, *repository, &pinned, review_at, "cache expired").await?;
        sqlx::query(sql::DELETE_RECORD)
            .bind(repository)
            .bind(key)
            .bind(before)
            .execute(&mut *connection)
            .await
            .during("deleting a cache record")?;
    }
    let memos = sqlx::query(sql::DELETE_MEMOS)
        .bind(before)
        .bind(i64::from(limit))
        .execute(connection)
        .await
        .during("deleting unused memos")?;
    Ok(stale.len() as u64 + memos.rows_affected())
}

async fn record_pulls(connection: &mut PgConnection, pulls: &[Pulls]) -> Result<()> {
    let now = now(&mut *connection).await?;
    for pull in pulls {
        sqlx::query(sql::RECORD_PULLS)
            .bind(pull.repository.as_str())
            .bind(pull.digest.to_bytes())
            .bind(now)
            .bind(stored_size(pull.count))
            .execute(&mut *connection)
            .await
            .during("recording pulls")?;
    }
    Ok(())
}
