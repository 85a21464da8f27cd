//! The workers of garbage collection. Each batch is one transaction of the writer's background queue and ends after a
//! few milliseconds, so that pushes hardly wait for it.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use oci::{Digest, RepoName};
use sqlx::sqlite::SqliteConnection;

use super::purge::{Purge, doom_unlinked, unlink};
use super::rows::{During, stored_size};
use super::writer::Durability::Async;
use super::{Sqlite, Times, micros, now};
use crate::metadata::Result;
use crate::metadata::collection::{
    Collection, Explain, ExplainPage, Fate, Pulls, ReviewQueue, Reviewed, clock_fault, pages, sql,
};

/// A batch ends after so long, or so many.
const BATCH_TIME_MAX: Duration = Duration::from_millis(4);
const BATCH: u32 = 50;

#[async_trait]
impl Collection for Sqlite {
    async fn begin_collection(&self) -> Result<Option<String>> {
        self.writer
            .run_in_background(Async, |connection| Box::pin(begin(connection)))
            .await
    }

    async fn collection_paused(&self) -> Result<Option<String>> {
        sqlx::query_scalar("SELECT gc_paused FROM store")
            .fetch_one(&self.readers)
            .await
            .during("reading whether collection is paused")
    }

    async fn confirm_collection(&self) -> Result<()> {
        self.writer
            .run(Async, |connection| {
                Box::pin(async {
                    sqlx::query("UPDATE store SET gc_paused = NULL, last_seen = $1")
                        .bind(now())
                        .execute(connection)
                        .await
                        .during("confirming collection")?;
                    Ok(())
                })
            })
            .await
    }

    async fn review_manifests(&self) -> Result<Reviewed> {
        if !self.is_due(sql::DUE_MANIFESTS).await? {
            return Ok(Reviewed::default());
        }
        let times = self.times;
        self.writer
            .run_in_background(Async, move |connection| {
                Box::pin(review_manifests(connection, times))
            })
            .await
    }

    async fn review_links(&self) -> Result<Reviewed> {
        if !self.is_due(sql::DUE_LINKS).await? {
            return Ok(Reviewed::default());
        }
        let times = self.times;
        self.writer
            .run_in_background(Async, move |connection| Box::pin(review_links(connection, times)))
            .await
    }

    async fn expire_cache(&self, unused: Duration, limit: u32) -> Result<u64> {
        let before = now() - micros(unused);
        let review_delay = self.times.review_delay;
        self.writer
            .run_in_background(Async, move |connection| {
                Box::pin(expire_cache(connection, before, limit, review_delay))
            })
            .await
    }

    async fn hold(&self, repository: &RepoName, digest: &Digest, holder: &str, life: Duration) -> Result<()> {
        let (repository, digest, holder) = (repository.clone(), *digest, holder.to_owned());
        self.writer
            .run(Async, move |connection| {
                Box::pin(async move {
                    sqlx::query(
                        "INSERT INTO holds (repository_id, digest, holder, until)
                             SELECT id, $2, $3, $4 FROM repositories WHERE name = $1 AND deleted_at IS NULL
                         ON CONFLICT DO UPDATE SET until = max(until, excluded.until)",
                    )
                    .bind(repository.as_str())
                    .bind(digest.to_bytes())
                    .bind(holder)
                    .bind(now() + micros(life))
                    .execute(connection)
                    .await
                    .during("holding a manifest")?;
                    Ok(())
                })
            })
            .await
    }

    async fn forget(&self, history: Duration, limit: u32) -> Result<u64> {
        let ends = [
            (sql::EXPIRE_HOLDS, now()),
            (sql::FORGET_TAG_EVENTS, now() - micros(history)),
        ];
        self.writer
            .run_in_background(Async, move |connection| {
                Box::pin(async move {
                    let mut forgotten = 0;
                    for (statement, before) in ends {
                        forgotten += sqlx::query(statement)
                            .bind(before)
                            .bind(limit)
                            .execute(&mut *connection)
                            .await
                            .during("forgetting what is over")?
                            .rows_affected();
                    }
                    Ok(forgotten)
                })
            })
            .await
    }

    async fn review_queue(&self) -> Result<ReviewQueue> {
        let now = now();
        let (manifests, oldest_manifest): (i64, Option<i64>) = sqlx::query_as(sql::COUNT_DUE_MANIFESTS)
            .bind(now)
            .fetch_one(&self.readers)
            .await
            .during("counting manifests to review")?;
        let (links, oldest_link): (i64, Option<i64>) = sqlx::query_as(sql::COUNT_DUE_LINKS)
            .bind(now)
            .fetch_one(&self.readers)
            .await
            .during("counting links to review")?;
        let oldest = oldest_manifest.into_iter().chain(oldest_link).min();
        Ok(ReviewQueue {
            manifests: super::rows::size(manifests),
            links: super::rows::size(links),
            oldest_micros: oldest.map_or(0, |at| super::rows::size(now - at)),
        })
    }

    async fn explain(&self, question: Explain) -> Result<ExplainPage> {
        pages::explain(self, question).await
    }

    async fn record_pulls(&self, pulls: Vec<Pulls>) -> Result<()> {
        for part in pulls.chunks(BATCH as usize) {
            let part = part.to_vec();
            self.writer
                .run_in_background(Async, move |connection| Box::pin(record_pulls(connection, part)))
                .await?;
        }
        Ok(())
    }
}

impl Sqlite {
    /// A look from a reader, so that an idle server's database is not written to.
    async fn is_due(&self, candidates: &'static str) -> Result<bool> {
        let first: Option<(i64, i64)> = sqlx::query_as(candidates)
            .bind(now())
            .bind(1)
            .fetch_optional(&self.readers)
            .await
            .during("looking for reviews that are due")?;
        Ok(first.is_some())
    }
}

async fn begin(connection: &mut SqliteConnection) -> Result<Option<String>> {
    let now = now();
    let (last_seen, paused): (i64, Option<String>) = sqlx::query_as("SELECT last_seen, gc_paused FROM store")
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

async fn review_manifests(connection: &mut SqliteConnection, times: Times) -> Result<Reviewed> {
    let begun = Instant::now();
    let mut reviewed = Reviewed::default();
    for (repository, id) in due(connection, sql::DUE_MANIFESTS).await? {
        let Some(found) = super::explain::manifest(&mut *connection, id, times).await? else {
            continue;
        };
        let verdict = found.facts.verdict();
        if verdict.fate == Fate::Remove {
            let purge = Purge {
                repository,
                id,
                digest: found.item.digest,
                size: stored_size(found.item.size),
                counted: found.facts.deleted_at.is_none(),
                review_at: now() + times.review_delay,
            };
            purge.run(connection).await?;
            reviewed.removed.push((found.item.repository, found.item.digest));
        } else {
            keep_manifest(connection, id, verdict.review_at()).await?;
            reviewed.kept.extend(verdict.reason.map(|reason| reason.word()));
        }
        reviewed.decided += 1;
        if begun.elapsed() > BATCH_TIME_MAX {
            break;
        }
    }
    Ok(reviewed)
}

async fn due(connection: &mut SqliteConnection, candidates: &'static str) -> Result<Vec<(i64, i64)>> {
    sqlx::query_as(candidates)
        .bind(now())
        .bind(BATCH)
        .fetch_all(connection)
        .await
        .during("finding reviews that are due")
}

async fn keep_manifest(connection: &mut SqliteConnection, id: i64, review_at: Option<i64>) -> Result<()> {
    sqlx::query(sql::KEEP_MANIFEST)
        .bind(id)
        .bind(review_at)
        .execute(connection)
        .await
        .during("keeping a manifest")?;
    Ok(())
}

async fn review_links(connection: &mut SqliteConnection, times: Times) -> Result<Reviewed> {
    let begun = Instant::now();
    let mut reviewed = Reviewed::default();
    for (repository, blob) in due(connection, sql::DUE_LINKS).await? {
        let Some(found) = super::explain::link(&mut *connection, repository, blob).await? else {
            continue;
        };
        let verdict = found.item.verdict;
        if verdict.fate == Fate::Remove {
            unlink(connection, repository, blob, stored_size(found.item.size)).await?;
            if let Some(bytes) = doom_unlinked(connection, blob, now() + times.delete_delay).await? {
                reviewed.doomed += 1;
                reviewed.doomed_bytes += bytes;
            }
            reviewed.removed.push((found.item.repository, found.item.digest));
        } else {
            sqlx::query(sql::KEEP_LINK)
                .bind(repository)
                .bind(blob)
                .bind(verdict.review_at())
                .execute(&mut *connection)
                .await
                .during("keeping a link")?;
            reviewed.kept.extend(verdict.reason.map(|reason| reason.word()));
        }
        reviewed.decided += 1;
        if begun.elapsed() > BATCH_TIME_MAX {
            break;
        }
    }
    Ok(reviewed)
}

async fn expire_cache(
    connection: &mut SqliteConnection,
    before: i64,
    limit: u32,
    review_delay: i64,
) -> Result<u64> {
    let stale: Vec<(i64, String)> = sqlx::query_as(sql::STALE_RECORDS)
        .bind(before)
        .bind(limit)
        .fetch_all(&mut *connection)
        .await
        .during("finding unused cache records")?;
    for (repository, key) in &stale {
        sqlx::query(sql::REVIEW_CACHED)
            .bind(repository)
            .bind(key)
            .bind(now() + review_delay)
            .execute(&mut *connection)
            .await
            .during("enqueueing a cache record's layer")?;
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
        .bind(limit)
        .execute(connection)
        .await
        .during("deleting unused memos")?;
    Ok(stale.len() as u64 + memos.rows_affected())
}

async fn record_pulls(connection: &mut SqliteConnection, pulls: Vec<Pulls>) -> Result<()> {
    for pull in pulls {
        sqlx::query(sql::RECORD_PULLS)
            .bind(pull.repository.as_str())
            .bind(pull.digest.to_bytes())
            .bind(now())
            .bind(stored_size(pull.count))
            .execute(&mut *connection)
            .await
            .during("recording pulls")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;

    /// What a review, a page or a purge costs may not depend on how much there is.
    #[tokio::test]
    async fn nothing_scans() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registry.db");
        let store = Sqlite::open(&path, &Limits::default()).await.unwrap();
        let paged = [
            sql::DUE_MANIFESTS,
            sql::DUE_LINKS,
            sql::STALE_RECORDS,
            sql::REVIEWED_MANIFESTS,
            sql::REVIEWED_LINKS,
            sql::MANIFESTS_OF,
            sql::LINKS_OF,
            sql::TRASHED,
            sql::DELETED_TAGS,
            sql::LAST_DELETED,
            sql::TAG_AGES,
            sql::EXPIRE_HOLDS,
            sql::FORGET_TAG_EVENTS,
        ];
        let others = [
            sql::MANIFEST_FACTS,
            sql::LINK_FACTS,
            sql::ROWS_OF_DIGEST,
            sql::REVIEW_BLOBS,
            sql::REVIEW_CHILDREN,
            sql::REVIEW_REFERRERS,
            sql::REVIEW_CACHED,
            sql::DELETE_BLOB,
            sql::DELETED_WITH,
            sql::USAGE,
            sql::TRASH_BYTES,
        ];
        for statement in paged.iter().chain(&others) {
            let plan: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")))
                    .fetch_all(&store.readers)
                    .await
                    .unwrap();
            let steps: Vec<&str> = plan.iter().map(|(.., detail)| detail.as_str()).collect();
            let scans = |step: &&str| {
                step.starts_with("SCAN") && !step.contains("(subquery") && *step != "SCAN CONSTANT ROW"
            };
            assert!(!steps.iter().any(scans), "{statement}: {steps:?}");
            let sorts = steps.iter().any(|step| step.contains("TEMP B-TREE"));
            assert!(!sorts || !paged.contains(statement), "{statement}: {steps:?}");
        }
    }
}
