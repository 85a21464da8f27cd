//! Background jobs: what the server does again and again beside the requests.
//!
//! A job runs in every process, or in one of all processes on a database: that one holds a lease in the database, renews
//! it at a third of its life and stops working at two thirds if that fails, by its own monotonic clock. So two never
//! work at once, whatever their clocks say. After a run the lease is kept for the interval, so that a job runs once in
//! it, not once a process.

mod lease;
mod metrics;

use std::collections::BTreeMap;
use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::metadata::MetadataStore;
use crate::report::chain;
use lease::Lease;
pub(crate) use metrics::JobMetrics;

/// A stopping server waits this long for a job to come to a good end.
const STOP_WAIT_MAX: Duration = Duration::from_secs(10);

pub(crate) type JobError = Box<dyn Error + Send + Sync>;

/// Where a job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// In every process.
    Process,
    /// In one process at a time.
    Singleton,
}

/// What a run leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing to do until the interval is over.
    Rest,
    /// More of the same at once.
    GoOn,
    /// Nothing ever.
    Done,
}

/// One run, as the job sees it.
#[derive(Clone)]
pub(crate) struct Turn {
    stop: watch::Receiver<bool>,
    /// Of a singleton: counts the lease's holders, so that what an earlier one wrote late can be told.
    pub(crate) epoch: Option<i64>,
}

/// The running jobs of a process.
pub(crate) struct Jobs {
    metadata: Arc<dyn MetadataStore>,
    /// This process among those on the database.
    holder: String,
    stop: watch::Sender<bool>,
    running: Mutex<BTreeMap<&'static str, JoinHandle<()>>>,
    metrics: JobMetrics,
}

impl Turn {
    #[cfg(test)]
    pub(crate) fn for_test(epoch: Option<i64>) -> Self {
        let (_, stop) = watch::channel(false);
        Self { stop, epoch }
    }

    /// Whether the server stops: long work then ends where it can go on later.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }
}

impl Jobs {
    pub(crate) fn new(metadata: Arc<dyn MetadataStore>) -> Self {
        Self {
            metadata,
            holder: uuid::Uuid::new_v4().to_string(),
            stop: watch::Sender::new(false),
            running: Mutex::default(),
            metrics: JobMetrics::default(),
        }
    }

    pub(crate) fn metrics(&self) -> JobMetrics {
        self.metrics.clone()
    }

    /// Starts a job. Its first run is at once; dropping its future at an await must be harmless.
    pub(crate) fn start<W, F>(&self, name: &'static str, interval: Duration, scope: Scope, work: W)
    where
        W: Fn(Turn) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Next, JobError>> + Send + 'static,
    {
        let runner = Runner {
            name,
            interval,
            lease: (scope == Scope::Singleton)
                .then(|| Lease::new(Arc::clone(&self.metadata), name, self.holder.clone())),
            stop: self.stop.subscribe(),
            metrics: self.metrics.clone(),
        };
        let task = tokio::spawn(runner.run(work));
        self.running.lock().insert(name, task);
    }

    /// Ends all jobs; those that don't come to an end by themselves are cut off.
    pub(crate) async fn stop(&self) {
        self.stop.send_replace(true);
        let running = std::mem::take(&mut *self.running.lock());
        let deadline = tokio::time::Instant::now() + STOP_WAIT_MAX;
        for (name, mut task) in running {
            if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
                tracing::warn!(job = name, "a job did not stop in time and is cut off");
                task.abort();
            }
        }
    }
}

struct Runner {
    name: &'static str,
    interval: Duration,
    lease: Option<Lease>,
    stop: watch::Receiver<bool>,
    metrics: JobMetrics,
}

impl Runner {
    async fn run<W, F>(mut self, work: W)
    where
        W: Fn(Turn) -> F,
        F: Future<Output = Result<Next, JobError>> + 'static,
    {
        while !*self.stop.borrow() {
            let next = self.turn(&work).await;
            if next == Next::Done {
                break;
            }
            if next == Next::Rest {
                tokio::select! {
                    () = tokio::time::sleep(self.interval) => {}
                    _ = self.stop.changed() => {}
                }
            }
        }
        if let Some(lease) = &mut self.lease {
            lease.release().await;
        }
    }

    async fn turn<W, F>(&mut self, work: &W) -> Next
    where
        W: Fn(Turn) -> F,
        F: Future<Output = Result<Next, JobError>> + 'static,
    {
        let epoch = match &mut self.lease {
            None => None,
            Some(lease) => match lease.hold().await {
                Some(epoch) => Some(epoch),
                None => return Next::Rest,
            },
        };
        let turn = Turn {
            stop: self.stop.clone(),
            epoch,
        };
        tracing::debug!(job = self.name, epoch = turn.epoch, "a background job runs");
        let begun = Instant::now();
        let mut working = pin!(AssertUnwindSafe(work(turn)).catch_unwind());
        let ended = match &mut self.lease {
            None => Some(working.await),
            Some(lease) => tokio::select! {
                ended = &mut working => Some(ended),
                () = lease.keep() => None,
            },
        };
        let next = match ended {
            Some(Ok(Ok(next))) => Ok(next),
            Some(Ok(Err(error))) => Err(chain(error.as_ref())),
            Some(Err(_)) => Err("it panicked".to_owned()),
            None => Err("its lease could not be renewed".to_owned()),
        };
        self.metrics.ran(self.name, begun.elapsed(), next.is_ok());
        if let Some(lease) = &mut self.lease {
            lease.keep_for(self.interval).await;
        }
        next.unwrap_or_else(|error| {
            tracing::warn!(
                job = self.name,
                error,
                "a background job failed: it runs again later"
            );
            Next::Rest
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::config::Limits;
    use crate::metadata::sqlite::Sqlite;

    async fn store(directory: &tempfile::TempDir) -> Arc<dyn MetadataStore> {
        let path = directory.path().join("registry.db");
        Arc::new(Sqlite::open(&path, &Limits::default()).await.unwrap())
    }

    async fn until(condition: impl Fn() -> bool) {
        for _ in 0..500 {
            if condition() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it takes too long");
    }

    #[tokio::test]
    async fn a_singleton_runs_in_one_process_and_moves_to_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let metadata = store(&directory).await;
        let counts = [Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0))];
        let processes = [Jobs::new(Arc::clone(&metadata)), Jobs::new(metadata)];
        for (jobs, count) in processes.iter().zip(&counts) {
            let count = Arc::clone(count);
            jobs.start("one", Duration::from_millis(20), Scope::Singleton, move |turn| {
                assert!(turn.epoch.is_some());
                count.fetch_add(1, Ordering::SeqCst);
                async { Ok(Next::Rest) }
            });
        }
        let ran = |index: usize| counts[index].load(Ordering::SeqCst);
        until(|| ran(0) + ran(1) > 3).await;
        let first = usize::from(ran(0) == 0);
        assert_eq!(ran(1 - first), 0, "only one of them has the lease");
        processes[first].stop().await;
        until(|| ran(1 - first) > 0).await;
        processes[1 - first].stop().await;
    }

    #[tokio::test]
    async fn a_job_that_fails_or_panics_runs_again() {
        let directory = tempfile::tempdir().unwrap();
        let jobs = Jobs::new(store(&directory).await);
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        jobs.start("bad", Duration::from_millis(1), Scope::Process, move |_| {
            let run = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                match run {
                    0 => Err("no luck".into()),
                    1 => panic!("worse"),
                    2 => Ok(Next::GoOn),
                    _ => Ok(Next::Done),
                }
            }
        });
        until(|| count.load(Ordering::SeqCst) == 4).await;
        jobs.stop().await;
        assert_eq!(count.load(Ordering::SeqCst), 4);
        let mut registry = prometheus_client::registry::Registry::default();
        jobs.metrics().register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("job_failures_total{job=\"bad\"} 2"), "{text}");
    }

    #[tokio::test]
    async fn a_waiting_job_stops_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let jobs = Jobs::new(store(&directory).await);
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        jobs.start("slow", Duration::from_secs(3600), Scope::Singleton, move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            async { Ok(Next::Rest) }
        });
        until(|| count.load(Ordering::SeqCst) == 1).await;
        let begun = Instant::now();
        jobs.stop().await;
        assert!(begun.elapsed() < STOP_WAIT_MAX);
    }
}
