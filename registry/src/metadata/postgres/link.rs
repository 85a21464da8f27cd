//! The connections to the server, all given up when one of them gets no answer.
//!
//! A machine that loses its power, or a network that drops packets, ends no connection: the kernel goes on sending for a
//! quarter of an hour. A database that fails over to another machine would be back long before that.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use super::transaction::retrying;
use crate::config::DatabaseConfig;
use crate::metadata::{MetadataError, Result};

pub(super) struct Link {
    pool: ArcSwap<PgPool>,
    options: PgConnectOptions,
    connections_max: u32,
    /// How long a request waits for a server that is away.
    wait_max: Duration,
    /// How long the server may say nothing.
    silence_max: Duration,
}

#[derive(Debug, thiserror::Error)]
#[error("PostgreSQL has not answered for {} s: its connections are given up", .0.as_secs_f32())]
struct Silent(Duration);

impl Link {
    /// Connects with the first question.
    pub(super) fn new(options: PgConnectOptions, config: &DatabaseConfig) -> Self {
        Self {
            pool: ArcSwap::from_pointee(pool(&options, config.connections_max, config.wait_max)),
            options,
            connections_max: config.connections_max,
            wait_max: config.wait_max,
            silence_max: config.silence_max,
        }
    }

    /// For one question: the next one may need another pool.
    pub(super) fn pool(&self) -> PgPool {
        PgPool::clone(&self.pool.load())
    }

    /// Runs a transaction until it is not in another one's way and the server answers, for a while.
    pub(super) async fn retrying<T, F, W>(&self, work: W) -> Result<T>
    where
        W: Fn() -> F,
        F: Future<Output = Result<T>>,
    {
        retrying(self.wait_max, || self.answered(work())).await
    }

    pub(super) async fn close(&self) {
        self.pool().close().await;
    }

    async fn answered<T>(&self, attempt: impl Future<Output = Result<T>>) -> Result<T> {
        let pool = self.pool.load_full();
        match tokio::time::timeout(self.silence_max, attempt).await {
            Ok(answer) => answer,
            Err(_) => {
                self.give_up(&pool);
                // Not tried again: it may have been the commit that was not answered.
                Err(MetadataError::Unavailable {
                    operation: "waiting for an answer",
                    source: Box::new(Silent(self.silence_max)),
                })
            }
        }
    }

    /// Puts a new pool in the place of a silent one, unless another one has.
    fn give_up(&self, silent: &Arc<PgPool>) {
        let fresh = Arc::new(pool(&self.options, self.connections_max, self.wait_max));
        let before = self.pool.compare_and_swap(silent, fresh);
        if Arc::ptr_eq(&before, silent) {
            tracing::warn!(
                silent_seconds = self.silence_max.as_secs_f32(),
                "PostgreSQL does not answer: connecting anew"
            );
            let silent = PgPool::clone(silent);
            // It waits for its connections, which end when the kernel gives them up.
            tokio::spawn(async move { silent.close().await });
        }
    }
}

fn pool(options: &PgConnectOptions, connections_max: u32, wait_max: Duration) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(wait_max)
        // A broken connection shows at the first statement, which is then repeated on another one.
        .test_before_acquire(false)
        .connect_lazy_with(options.clone())
}
