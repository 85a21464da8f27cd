//! Transactions that wait for a restarted server, and are tried again when they lost against another.

use std::future::Future;
use std::time::{Duration, Instant};

use sqlx::Transaction;
use sqlx::postgres::PgPool;

use super::rows::{During, Trouble, trouble};
use super::{Durability, Postgres};
use crate::metadata::Result;
use crate::timings::COMMITS;

/// A transaction that loses this often against others is given up.
const CONFLICTS_MAX: u32 = 20;
const CONFLICT_PAUSE_MICROS_MAX: u64 = 20_000;
/// Between two looks whether the server is back.
const LOST_PAUSE: Duration = Duration::from_millis(50);

pub(super) type Tx = Transaction<'static, sqlx::Postgres>;

impl Postgres {
    pub(super) fn pool(&self) -> PgPool {
        self.link.pool()
    }

    pub(super) async fn begin(&self, durability: Durability) -> Result<Tx> {
        let begun = match durability {
            Durability::Durable => self.pool().begin().await,
            // A crash of the server loses the last of these, in order.
            Durability::Async => {
                self.pool()
                    .begin_with("BEGIN; SET LOCAL synchronous_commit = off")
                    .await
            }
        };
        begun.during("beginning")
    }

    /// Runs a transaction until it is not in another one's way and the server answers, for a while.
    pub(super) async fn retrying<T, F, W>(&self, work: W) -> Result<T>
    where
        W: Fn() -> F,
        F: Future<Output = Result<T>>,
    {
        self.link.retrying(work).await
    }
}

/// Runs work again whose transaction was rolled back, because of another one or because the server went away.
///
/// Only the commit itself is never repeated blindly: when the server goes while it commits, nobody knows the outcome,
/// and the caller is told of the failure.
pub(super) async fn retrying<T, F, W>(wait_max: Duration, work: W) -> Result<T>
where
    W: Fn() -> F,
    F: Future<Output = Result<T>>,
{
    let until = Instant::now() + wait_max;
    let mut conflicts = 0;
    loop {
        let error = match work().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        match trouble(&error) {
            Trouble::Conflict if conflicts < CONFLICTS_MAX => {
                conflicts += 1;
                // Those who collided don't come back together.
                let pause = rand::random_range(0..CONFLICT_PAUSE_MICROS_MAX);
                tokio::time::sleep(Duration::from_micros(pause)).await;
            }
            Trouble::Lost if Instant::now() < until => tokio::time::sleep(LOST_PAUSE).await,
            _ => return Err(error),
        }
    }
}

/// Ends a transaction.
pub(super) async fn commit(transaction: Tx) -> Result<()> {
    let begun = Instant::now();
    let outcome = transaction.commit().await.during(super::rows::COMMITTING);
    COMMITS.observe(begun.elapsed().as_secs_f64());
    outcome
}
