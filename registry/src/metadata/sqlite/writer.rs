//! The one writer: a task that owns the writing connection and commits what waits as one group.
//!
//! A job is a closure over the connection that awaits nothing else. In a group each runs in a savepoint, so that one
//! failing job takes nothing with it. Jobs of the background queue run when nobody else waits, or one at a time when they
//! have waited too long. A group in which every job may be lost in a power cut is committed without a sync.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::rows::{During, database_error};
use crate::metadata::{MetadataError, Result};
use crate::report::chain;
use crate::timings::COMMITS;

/// Jobs in one commit.
const GROUP_JOBS_MAX: usize = 64;
/// After this long a group is closed, so that its first job isn't kept waiting.
const GROUP_TIME_MAX: Duration = Duration::from_millis(5);
const COMMITTING: &str = "committing";
/// Jobs that wait before callers do.
const QUEUE_JOBS_MAX: usize = 1024;
/// A background job joins the others at the latest after so long.
const BACKGROUND_WAIT_MAX: Duration = Duration::from_millis(100);

/// What a commit must survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// A power cut.
    Durable,
    /// The end of the process.
    Async,
}

pub(super) struct Writer {
    foreground: mpsc::Sender<Box<dyn Job>>,
    background: mpsc::Sender<Box<dyn Job>>,
    closing: CancellationToken,
    task: Mutex<Option<JoinHandle<Result<()>>>>,
}

#[async_trait]
trait Job: Send {
    fn durable(&self) -> bool;
    /// Does the work; false: it failed and must be rolled back.
    async fn run(&mut self, connection: &mut SqliteConnection) -> bool;
    fn answer(self: Box<Self>, committed: bool);
}

impl Writer {
    pub(super) fn start(connection: SqliteConnection) -> Self {
        let (foreground, jobs) = mpsc::channel(QUEUE_JOBS_MAX);
        let (background, later) = mpsc::channel(QUEUE_JOBS_MAX);
        let closing = CancellationToken::new();
        let group = Group {
            connection,
            synced: true,
        };
        let task = tokio::spawn(group.serve(jobs, later, closing.clone()));
        Self {
            foreground,
            background,
            closing,
            task: Mutex::new(Some(task)),
        }
    }

    /// Ends the task once nobody waits, and closes its connection.
    pub(super) async fn close(&self) -> Result<()> {
        self.closing.cancel();
        let task = self.task.lock().take();
        match task {
            Some(task) => task.await.unwrap_or(Err(MetadataError::Closed)),
            None => Ok(()),
        }
    }

    /// Returns when the writer has given up.
    pub(super) async fn stopped(&self) {
        self.foreground.closed().await;
    }

    /// Runs a transaction and returns when it is committed.
    pub(super) async fn run<T, F>(&self, durability: Durability, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T>> + Send + 'static,
    {
        run(&self.foreground, durability, work).await
    }

    /// As [`Writer::run`], behind all others. The work ends after a few milliseconds.
    pub(super) async fn run_in_background<T, F>(&self, durability: Durability, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T>> + Send + 'static,
    {
        run(&self.background, durability, work).await
    }
}

async fn run<T, F>(queue: &mpsc::Sender<Box<dyn Job>>, durability: Durability, work: F) -> Result<T>
where
    T: Send + 'static,
    F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T>> + Send + 'static,
{
    let begun = Instant::now();
    let (reply, answer) = oneshot::channel();
    let job = Transaction {
        durability,
        work: Some(work),
        outcome: None,
        reply,
    };
    queue
        .send(Box::new(job))
        .await
        .map_err(|_| MetadataError::Closed)?;
    let outcome = answer.await.map_err(|_| MetadataError::Closed)?;
    COMMITS.observe(begun.elapsed().as_secs_f64());
    outcome
}

struct Transaction<T, F> {
    durability: Durability,
    work: Option<F>,
    outcome: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

#[async_trait]
impl<T, F> Job for Transaction<T, F>
where
    T: Send + 'static,
    F: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T>> + Send + 'static,
{
    fn durable(&self) -> bool {
        self.durability == Durability::Durable
    }

    async fn run(&mut self, connection: &mut SqliteConnection) -> bool {
        let Some(work) = self.work.take() else {
            return false;
        };
        let outcome = work(connection).await;
        let succeeded = outcome.is_ok();
        self.outcome = Some(outcome);
        succeeded
    }

    fn answer(self: Box<Self>, committed: bool) {
        let outcome = match self.outcome {
            Some(Ok(_)) if !committed => Err(MetadataError::NotCommitted),
            Some(outcome) => outcome,
            None => Err(MetadataError::NotCommitted),
        };
        // Nobody waits any more: the caller was cancelled, the commit stands.
        let _ = self.reply.send(outcome);
    }
}

struct Group {
    connection: SqliteConnection,
    /// Whether the connection syncs at commit.
    synced: bool,
}

impl Group {
    async fn serve(
        mut self,
        mut jobs: mpsc::Receiver<Box<dyn Job>>,
        mut later: mpsc::Receiver<Box<dyn Job>>,
        closing: CancellationToken,
    ) -> Result<()> {
        let mut background_ran = Instant::now();
        loop {
            let (first, behind) = tokio::select! {
                biased;
                job = jobs.recv() => (job, false),
                Some(job) = later.recv() => (Some(job), true),
                () = closing.cancelled() => (None, false),
            };
            let Some(first) = first else {
                return self.connection.close().await.during("closing the database");
            };
            let mut group = vec![first];
            while group.len() < GROUP_JOBS_MAX
                && let Ok(next) = jobs.try_recv()
            {
                group.push(next);
            }
            if !behind
                && background_ran.elapsed() > BACKGROUND_WAIT_MAX
                && let Ok(next) = later.try_recv()
            {
                group.push(next);
                background_ran = Instant::now();
            }
            if behind {
                background_ran = Instant::now();
            }
            let committed = self.commit(&mut group, &mut jobs).await;
            let goes_on = match &committed {
                Ok(()) => true,
                Err(error) => {
                    tracing::error!(error = chain(error), "metadata commit failed");
                    is_undone(error) && self.roll_back().await.is_ok()
                }
            };
            for job in group {
                job.answer(committed.is_ok());
            }
            if !goes_on {
                tracing::error!("the metadata writer stops: only recovery can tell what was committed");
                return Err(MetadataError::Closed);
            }
        }
    }

    async fn commit(
        &mut self,
        group: &mut Vec<Box<dyn Job>>,
        jobs: &mut mpsc::Receiver<Box<dyn Job>>,
    ) -> Result<()> {
        let durable = group.iter().any(|job| job.durable());
        self.begin(durable, group.len() > 1).await?;
        // Every call is a trip to SQLite's thread, so that statements travel together.
        if let [only] = group.as_mut_slice() {
            // Without company the transaction is the savepoint.
            if !only.run(&mut self.connection).await {
                return self.roll_back().await;
            }
            return self.end().await;
        }
        let begun = Instant::now();
        let mut index = 0;
        while index < group.len() {
            let succeeded = group[index].run(&mut self.connection).await;
            index += 1;
            // What arrived meanwhile joins, if the group's durability covers it.
            if index == group.len()
                && index < GROUP_JOBS_MAX
                && begun.elapsed() < GROUP_TIME_MAX
                && self.synced
                && let Ok(next) = jobs.try_recv()
            {
                group.push(next);
            }
            match (succeeded, index < group.len()) {
                (true, true) => self.call("RELEASE job; SAVEPOINT job").await?,
                (false, true) => self.call("ROLLBACK TO job; RELEASE job; SAVEPOINT job").await?,
                (false, false) => self.call("ROLLBACK TO job").await?,
                // The commit releases it.
                (true, false) => {}
            }
        }
        self.end().await
    }

    async fn call(&mut self, statements: &'static str) -> Result<()> {
        sqlx::query(statements)
            .execute(&mut self.connection)
            .await
            .during("going on to the next job")?;
        Ok(())
    }

    async fn end(&mut self) -> Result<()> {
        sqlx::query("COMMIT")
            .execute(&mut self.connection)
            .await
            .during(COMMITTING)?;
        Ok(())
    }

    /// With a savepoint for the first of several jobs.
    async fn begin(&mut self, durable: bool, several: bool) -> Result<()> {
        let connection = &mut self.connection;
        let begun = if durable == self.synced {
            let begin = if several {
                "BEGIN IMMEDIATE; SAVEPOINT job"
            } else {
                "BEGIN IMMEDIATE"
            };
            sqlx::query(begin).execute(connection).await
        } else {
            let begin = match (durable, several) {
                (true, true) => "PRAGMA synchronous = FULL; BEGIN IMMEDIATE; SAVEPOINT job",
                (true, false) => "PRAGMA synchronous = FULL; BEGIN IMMEDIATE",
                (false, true) => "PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE; SAVEPOINT job",
                (false, false) => "PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE",
            };
            // Not prepared once and reused: a pragma may take effect while it is compiled.
            sqlx::raw_sql(begin).execute(connection).await
        };
        begun.during("beginning")?;
        self.synced = durable;
        Ok(())
    }

    async fn roll_back(&mut self) -> Result<()> {
        match sqlx::query("ROLLBACK").execute(&mut self.connection).await {
            Ok(_) => Ok(()),
            // SQLite has rolled back on its own after some errors, and there is nothing left to do.
            Err(sqlx::Error::Database(error)) if error.message().contains("no transaction") => Ok(()),
            Err(error) => Err(database_error("rolling back")(error)),
        }
    }
}

/// Whether nothing of the transaction can be on the disk: the failure came before the commit, the disk was full, or SQLite
/// had rolled back already. After an I/O error part of it may be.
fn is_undone(error: &MetadataError) -> bool {
    const ERROR: i32 = 1;
    const BUSY: i32 = 5;
    const FULL: i32 = 13;
    let MetadataError::Database {
        operation: COMMITTING,
        source,
    } = error
    else {
        return true;
    };
    let Some(sqlx::Error::Database(error)) = source.downcast_ref::<sqlx::Error>() else {
        return false;
    };
    // The low byte is the kind, the rest says more about it.
    let code = error
        .code()
        .and_then(|code| code.parse::<i32>().ok())
        .map(|code| code & 0xff);
    matches!(code, Some(ERROR | BUSY | FULL))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn writer() -> Writer {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::query("CREATE TABLE t (v INTEGER UNIQUE)")
            .execute(&mut connection)
            .await
            .unwrap();
        Writer::start(connection)
    }

    fn insert(
        value: i64,
    ) -> impl for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<()>> + Send {
        move |connection| {
            Box::pin(async move {
                sqlx::query("INSERT INTO t VALUES (?)")
                    .bind(value)
                    .execute(connection)
                    .await
                    .during("inserting")?;
                Ok(())
            })
        }
    }

    #[tokio::test]
    async fn a_failing_job_takes_nothing_with_it() {
        let writer = writer().await;
        // All in one group, half of them doomed by the unique constraint.
        let jobs = (0..20_i64).map(|index| {
            let durability = if index % 3 == 0 {
                Durability::Durable
            } else {
                Durability::Async
            };
            writer.run(durability, insert(index / 2))
        });
        let outcomes = futures::future::join_all(jobs).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 10);
        let count: i64 = writer
            .run(Durability::Async, |connection| {
                Box::pin(async move {
                    sqlx::query_scalar("SELECT count(*) FROM t")
                        .fetch_one(connection)
                        .await
                        .during("counting")
                })
            })
            .await
            .unwrap();
        assert_eq!(count, 10);
    }
}
