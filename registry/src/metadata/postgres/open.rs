//! Connecting, migrating, and knowing the store again.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::sync::Cache;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};

use super::link::Link;
use super::resolver::Resolver;
use super::rows::During;
use super::transaction::retrying;
use super::{GENERATION, Postgres};
use crate::config::{DatabaseConfig, Limits};
use crate::metadata::values::Times;
use crate::metadata::{MetadataError, Opened, Result, StoredManifest};

/// Manifest bytes kept in memory.
const MANIFEST_CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// The advisory lock under which the schema is changed: "layeryar" in ASCII.
const MIGRATION_LOCK: i64 = 0x6c61_7965_7279_6172;

/// How long a replica waits for another one that is migrating.
const MIGRATION_WAIT_MAX: Duration = Duration::from_secs(60);

/// What every connection is set to. All queries are walks along indexes, in the order in which their joins are written:
/// the planner, which knows nothing of a new database and averages of an old one, must not think otherwise (a base
/// layer may be linked in every repository). A request never waits long for another's locks, and a replica
/// that stalls inside a transaction does not hold up the rest.
const SETTINGS: [(&str, &str); 6] = [
    ("join_collapse_limit", "1"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("lock_timeout", "10s"),
    ("idle_in_transaction_session_timeout", "60s"),
];

impl Postgres {
    /// Connects, migrates, and checks that this binary may write there. `boot_id` is the run of what holds the bytes of
    /// uploads: the kernel's for a local disk.
    pub(crate) async fn open(
        url: &str,
        config: &DatabaseConfig,
        boot_id: String,
        limits: &Limits,
    ) -> Result<Self> {
        let statement_millis = (config.silence_max * 4 / 5).as_millis().to_string();
        let options = PgConnectOptions::from_str(url)
            .during("reading its URL")?
            .application_name("layeryard")
            .options(SETTINGS)
            // The server gives a statement up before we give the server up.
            .options([("statement_timeout", statement_millis.as_str())])
            .disable_statement_logging();
        let opened = retrying(config.wait_max, || async {
            let mut connection = PgConnection::connect_with(&options).await.during("connecting")?;
            let opened = prepare(&mut connection, &boot_id).await?;
            connection.close().await.during("closing a connection")?;
            Ok(opened)
        })
        .await?;
        let link = Arc::new(Link::new(options, config));
        let times = Times::of(limits);
        Ok(Self {
            resolver: Resolver::start(&link, times.review_delay / 2),
            manifests: Cache::builder()
                .max_capacity(MANIFEST_CACHE_BYTES)
                .weigher(|_, manifest: &StoredManifest| {
                    u32::try_from(manifest.bytes.len() + 300).unwrap_or(u32::MAX)
                })
                .build(),
            link,
            opened,
            boot_id,
            replica: uuid::Uuid::new_v4().to_string(),
            times,
        })
    }
}

async fn prepare(connection: &mut PgConnection, boot_id: &str) -> Result<Opened> {
    lock(connection).await?;
    // Before anything is changed: an older binary must not touch a newer schema.
    check_generation(connection).await?;
    migrate(connection).await?;
    warn_of_settings(connection).await?;
    let opened = take_over(connection, boot_id).await?;
    check_generation(connection).await?;
    sqlx::query("SELECT pg_advisory_unlock($1)")
        .bind(MIGRATION_LOCK)
        .execute(connection)
        .await
        .during("ending the migration")?;
    Ok(opened)
}

async fn lock(connection: &mut PgConnection) -> Result<()> {
    let until = Instant::now() + MIGRATION_WAIT_MAX;
    loop {
        // Polled, because who waits inside a statement holds a snapshot that blocks concurrent index builds.
        let locked: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
            .bind(MIGRATION_LOCK)
            .fetch_one(&mut *connection)
            .await
            .during("waiting for another replica's migration")?;
        if locked {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(MetadataError::Migrating);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn check_generation(connection: &mut PgConnection) -> Result<()> {
    let exists: bool = sqlx::query_scalar("SELECT to_regclass('store') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .during("looking for the schema")?;
    if !exists {
        return Ok(());
    }
    let needed: Option<i64> = sqlx::query_scalar("SELECT min_binary FROM store")
        .fetch_optional(connection)
        .await
        .during("reading the schema's generation")?;
    match needed {
        Some(needed) if needed > GENERATION => Err(MetadataError::TooNew {
            needed,
            ours: GENERATION,
        }),
        _ => Ok(()),
    }
}

async fn migrate(connection: &mut PgConnection) -> Result<()> {
    // A migration that waits for a busy table would hold up every request behind it.
    sqlx::query("SET lock_timeout = '5s'")
        .execute(&mut *connection)
        .await
        .during("limiting how long a migration waits")?;
    let mut migrator = sqlx::migrate!("../migrations/postgres");
    // The next release may have added to the schema already; `min_binary` says whether that matters.
    migrator.set_ignore_missing(true).set_locking(false);
    migrator
        .run(connection)
        .await
        .map_err(|source| MetadataError::Database {
            operation: "migrating the schema",
            source: Box::new(source),
        })
}

/// What an administrator may not know about: a commit that is answered could be lost.
async fn warn_of_settings(connection: &mut PgConnection) -> Result<()> {
    let (fsync, commit): (String, String) =
        sqlx::query_as("SELECT current_setting('fsync'), current_setting('synchronous_commit')")
            .fetch_one(connection)
            .await
            .during("reading the server's settings")?;
    if fsync == "off" || commit == "off" {
        tracing::warn!(
            fsync,
            synchronous_commit = commit,
            "this PostgreSQL may lose what it has committed when its machine goes down"
        );
    }
    Ok(())
}

/// Makes the store's identity or reads it, and notes that the database is in use.
async fn take_over(connection: &mut PgConnection, boot_id: &str) -> Result<Opened> {
    sqlx::query("INSERT INTO store (id, uuid, min_binary) VALUES (1, $1, $2) ON CONFLICT DO NOTHING")
        .bind(uuid::Uuid::new_v4().to_string())
        .bind(GENERATION)
        .execute(&mut *connection)
        .await
        .during("making the store's identity")?;
    let (store_uuid, last_boot, clean): (String, String, i64) =
        sqlx::query_as("SELECT uuid, boot_id, clean FROM store")
            .fetch_one(&mut *connection)
            .await
            .during("reading the store's identity")?;
    sqlx::query("UPDATE store SET boot_id = $1, clean = 0")
        .bind(boot_id)
        .execute(connection)
        .await
        .during("taking over the database")?;
    Ok(Opened {
        store_uuid,
        after_power_cut: clean == 0 && last_boot != boot_id,
    })
}
