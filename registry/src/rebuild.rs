//! Rebuilding a server's database from its blob store, while no server runs.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::Config;
use crate::lock::DataDirLock;
use crate::metadata::MetadataStore;
use crate::metadata::sqlite::{self, Sqlite};
use crate::server::{ServeError, journal, metadata, open_database, open_store, storage};
use crate::service::{Registry, journal as journals};

/// What a rebuild brought back.
#[derive(Clone, Debug)]
pub struct Rebuilt {
    pub blobs: u64,
    pub pushes: u64,
    pub deletions: u64,
    /// Where the database lies that was replaced.
    pub replaced: Option<PathBuf>,
}

/// Makes the database anew, or replays onto the one that is there what it lacks. The old one is kept beside it; until
/// the new one is complete nothing has changed.
pub async fn rebuild_metadata(config: &Config, anew: bool) -> Result<Rebuilt, ServeError> {
    let directory = &config.data_dir;
    let failed = |source| ServeError::DataDir {
        path: directory.clone(),
        source,
    };
    let _lock = DataDirLock::take(directory)?;
    let database = directory.join("registry.db");
    let work = directory.join("registry.db.rebuilding");
    let whole = directory.join("registry.db.rebuilt");
    for path in [&work, &whole] {
        remove(path).map_err(failed)?;
    }
    if config.database.url.is_some() {
        let empty = open_database(config, &config.limits).await.map_err(metadata)?;
        let position = empty.journal_position().await.map_err(metadata)?;
        if position.last_event > 0 {
            return Err(ServeError::NotEmpty);
        }
        return fill(config, empty).await;
    }
    if database.exists() && !anew {
        sqlite::copy(&database, &work).await.map_err(metadata)?;
    }
    let fresh = Sqlite::open(&work, &config.limits).await.map_err(metadata)?;
    let found = fill(config, Arc::new(fresh)).await?;
    // One file, without a log beside it.
    sqlite::copy(&work, &whole).await.map_err(metadata)?;
    let replaced = put_in_place(directory, &database, &whole).map_err(failed)?;
    remove(&work).map_err(failed)?;
    Ok(Rebuilt { replaced, ..found })
}

/// Brings a database that nobody else uses up to what the store knows, and closes it.
async fn fill(config: &Config, fresh: Arc<dyn MetadataStore>) -> Result<Rebuilt, ServeError> {
    let store = open_store(config).await.map_err(storage)?;
    let uuid = fresh.opened().await.map_err(metadata)?.store_uuid;
    let identity = store.identity(&uuid).await.map_err(storage)?;
    fresh.adopt_store(&identity).await.map_err(metadata)?;
    let registry = Registry::new(Arc::clone(&fresh), store, config.limits.clone(), true);
    let found = journals::rebuild(&Arc::new(registry)).await.map_err(journal)?;
    fresh.close().await.map_err(metadata)?;
    Ok(Rebuilt {
        blobs: found.blobs,
        pushes: found.pushes,
        deletions: found.deletions,
        replaced: None,
    })
}

fn put_in_place(directory: &Path, database: &Path, whole: &Path) -> io::Result<Option<PathBuf>> {
    File::open(whole)?.sync_all()?;
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let kept = directory.join(format!("registry.db.replaced-{seconds}"));
    let mut replaced = None;
    // The log first: without it the old database is merely older, with the new one's name it would be poison.
    for suffix in ["-wal", "-shm", ""] {
        let from = with_suffix(database, suffix);
        if from.exists() {
            fs::rename(&from, with_suffix(&kept, suffix))?;
            replaced = suffix.is_empty().then(|| kept.clone());
        }
    }
    fs::rename(whole, database)?;
    File::open(directory)?.sync_all()?;
    Ok(replaced)
}

fn remove(database: &Path) -> io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        match fs::remove_file(with_suffix(database, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
