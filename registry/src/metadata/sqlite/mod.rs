//! Metadata in one SQLite file, for exactly one process (the caller holds the data directory's lock).
//!
//! One task writes ([`writer`]); readers have a pool of their own and see every commit, as WAL gives them. This process's
//! clock is the database's clock.
//!
//! Several statements in one query save trips to SQLite's thread. Their parameters are written `$1`, never `?1`: of the
//! latter sqlx counts the gaps in each statement and stops binding too early.

mod accounts;
mod blobs;
mod cache;
mod collection;
mod explain;
mod fresh;
mod integrity;
mod leases;
mod lists;
mod log;
mod manifests;
mod outbox;
#[cfg(test)]
mod plans;
mod policing;
mod purge;
mod rebuild;
mod rows;
mod tags;
mod trash;
mod upkeep;
mod uploads;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};

use super::values::{Times, boot_id, micros, size};
use super::{MetadataError, MetadataStore, Opened, Result};
use crate::config::Limits;
use crate::report::chain;
use fresh::Fresh;
use rows::During;
use writer::Writer;

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/sqlite");

/// The schema generation that this binary reads and writes; compared with `store.min_binary`.
const GENERATION: i64 = 1;

/// The log is written back into the database after so many pages (16 MB): seldom enough that its syncs don't show in the
/// rate of commits, often enough to stay small.
const LOG_PAGES_MAX: u64 = 4000;

/// How long a reader waits for a connection of the pool.
const READER_WAIT_MAX: Duration = Duration::from_secs(10);

/// What each reader keeps of the database in memory, in KiB.
const READER_CACHE: &str = "-8000";
/// What the writer keeps, in KiB: pushes hit the indexes' pages at random, and those of 100,000 manifests are some 20 MB.
const WRITER_CACHE: &str = "PRAGMA cache_size = -32000";

/// Readers at once. More than cores only wait for each other.
const READERS: u32 = 4;

pub(crate) struct Sqlite {
    writer: Writer,
    readers: SqlitePool,
    fresh: Arc<Fresh>,
    opened: Opened,
    boot_id: String,
    times: Times,
}

impl MetadataStore for Sqlite {}

impl Sqlite {
    /// Opens or creates the database, migrates it, and takes over what the last process left.
    pub(crate) async fn open(path: &Path, limits: &Limits) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10))
            .pragma("cache_size", READER_CACHE)
            .pragma("wal_autocheckpoint", LOG_PAGES_MAX.to_string())
            // A savepoint's journal would else be a file now and then, made while everybody waits.
            .pragma("temp_store", "memory")
            .disable_statement_logging();
        let mut connection = SqliteConnection::connect_with(&options)
            .await
            .during("opening the database")?;
        MIGRATIONS
            .run(&mut connection)
            .await
            .map_err(|source| MetadataError::Database {
                operation: "migrating the schema",
                source: Box::new(source),
            })?;
        sqlx::raw_sql(WRITER_CACHE)
            .execute(&mut connection)
            .await
            .during("opening the database")?;
        let boot_id = boot_id();
        let opened = take_over(&mut connection, &boot_id).await?;
        lengthen_log(path).await;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(READER_WAIT_MAX)
            .test_before_acquire(false)
            .connect_with(
                options
                    .read_only(true)
                    .create_if_missing(false)
                    .pragma("query_only", "1"),
            )
            .await
            .during("opening readers")?;
        Ok(Self {
            writer: Writer::start(connection),
            readers,
            fresh: Arc::default(),
            opened,
            boot_id,
            times: Times::of(limits),
        })
    }
}

/// Checks the generation, notes that the database is in use, and frees the sessions that the last process was writing.
async fn take_over(connection: &mut SqliteConnection, boot_id: &str) -> Result<Opened> {
    let uuid = uuid::Uuid::new_v4().to_string();
    let row: (String, i64, String, bool) = sqlx::query_as(
        "INSERT INTO store (id, uuid, min_binary) VALUES (1, $1, $2) ON CONFLICT DO NOTHING;
         SELECT uuid, min_binary, boot_id, clean FROM store",
    )
    .bind(uuid)
    .bind(GENERATION)
    .fetch_one(&mut *connection)
    .await
    .during("reading the store's identity")?;
    let (store_uuid, needed, last_boot, clean) = row;
    if needed > GENERATION {
        return Err(MetadataError::TooNew {
            needed,
            ours: GENERATION,
        });
    }
    sqlx::query(
        "UPDATE store SET boot_id = $1, clean = 0;
         UPDATE uploads SET writer = NULL, writer_until = NULL WHERE writer IS NOT NULL;
         UPDATE leases SET expires_at = 0",
    )
    .bind(boot_id)
    .execute(connection)
    .await
    .during("taking over the database")?;
    Ok(Opened {
        store_uuid,
        after_power_cut: !clean && last_boot != boot_id,
    })
}

/// A log that stays short only costs time: a full disk must not keep the server from starting, nor from deleting.
async fn lengthen_log(path: &Path) {
    let path = path.to_owned();
    match tokio::task::spawn_blocking(move || log::lengthen(&path, LOG_PAGES_MAX)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(
            error = chain(&error),
            "the database's log stays short: commits take longer"
        ),
        Err(error) => tracing::warn!(
            error = chain(&error),
            "the database's log stays short: commits take longer"
        ),
    }
}

/// The objects that a database which nobody uses names, with their sizes.
pub(crate) async fn objects(path: &Path) -> Result<Vec<(String, u64)>> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .immutable(true)
        .disable_statement_logging();
    let mut connection = SqliteConnection::connect_with(&options)
        .await
        .during("opening a copy of the database")?;
    let rows: Vec<(String, i64)> = sqlx::query_as("SELECT storage_key, size FROM blobs WHERE state = 0")
        .fetch_all(&mut connection)
        .await
        .during("listing objects")?;
    connection
        .close()
        .await
        .during("closing a copy of the database")?;
    Ok(rows
        .into_iter()
        .map(|(key, stored)| (key, size(stored)))
        .collect())
}

/// Copies a database, log included, into one new file; the database may be in use.
pub(crate) async fn copy(from: &Path, to: &Path) -> Result<()> {
    let options = SqliteConnectOptions::new()
        .filename(from)
        .create_if_missing(false)
        .busy_timeout(Duration::from_secs(10))
        .disable_statement_logging();
    let mut connection = SqliteConnection::connect_with(&options)
        .await
        .during("opening the database to copy it")?;
    sqlx::query("VACUUM INTO $1")
        .bind(to.to_string_lossy().into_owned())
        .execute(&mut connection)
        .await
        .during("copying the database")?;
    connection
        .close()
        .await
        .during("closing the database that was copied")
}

/// Microseconds since 1970.
fn now() -> i64 {
    micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Upkeep, suite};

    impl Sqlite {
        /// Makes everything recorded so far look as if it came from before a power cut.
        pub(crate) async fn pretend_reboot(path: &Path) {
            let mut connection = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path))
                .await
                .unwrap();
            sqlx::query(
                "UPDATE store SET boot_id = 'before', clean = 0; UPDATE uploads SET boot_id = 'before'",
            )
            .execute(&mut connection)
            .await
            .unwrap();
        }
    }

    #[tokio::test]
    async fn a_power_cut_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registry.db");
        let open = async || {
            Sqlite::open(&path, &Limits::default())
                .await
                .unwrap()
                .opened()
                .await
                .unwrap()
        };
        assert!(!open().await.after_power_cut);
        assert!(
            !open().await.after_power_cut,
            "the process ended, the machine went on"
        );
        Sqlite::pretend_reboot(&path).await;
        assert!(open().await.after_power_cut);
    }

    #[tokio::test]
    async fn it_collects_garbage_as_the_contract_says() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registry.db");
        let limits = suite::collection::limits();
        suite::collection::run(&Sqlite::open(&path, &limits).await.unwrap()).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn collection_races_with_everything() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registry.db");
        let limits = suite::race::limits(Duration::from_millis(100));
        let store = Arc::new(Sqlite::open(&path, &limits).await.unwrap());
        suite::race::run(store, suite::race::duration()).await;
    }

    #[tokio::test]
    async fn collection_pauses_when_the_clock_jumps() {
        use crate::metadata::Collection;
        let directory = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&directory.path().join("registry.db"), &Limits::default())
            .await
            .unwrap();
        assert_eq!(store.begin_collection().await.unwrap(), None);
        store
            .writer
            .run(writer::Durability::Async, |connection| {
                Box::pin(async {
                    sqlx::query("UPDATE store SET last_seen = last_seen - 31 * 86400000000")
                        .execute(connection)
                        .await
                        .during("pretending that time has passed")?;
                    Ok(())
                })
            })
            .await
            .unwrap();
        let reason = store.begin_collection().await.unwrap().unwrap();
        assert!(reason.contains("31 days"), "{reason}");
        assert_eq!(
            store.begin_collection().await.unwrap(),
            Some(reason.clone()),
            "it lasts"
        );
        assert_eq!(store.collection_paused().await.unwrap(), Some(reason));
        store.confirm_collection().await.unwrap();
        assert_eq!(store.begin_collection().await.unwrap(), None);
    }

    #[tokio::test]
    async fn it_passes_the_contract_suite() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registry.db");
        let store = Sqlite::open(&path, &Limits::default()).await.unwrap();
        suite::run(&store).await;
        store.close().await.unwrap();
        assert!(
            !path.with_extension("db-wal").exists(),
            "one file holds everything"
        );
        let first = store.opened().await.unwrap();
        let second = Sqlite::open(&path, &Limits::default())
            .await
            .unwrap()
            .opened()
            .await
            .unwrap();
        assert_eq!(first.store_uuid, second.store_uuid);
        assert!(!second.after_power_cut);
    }
}
