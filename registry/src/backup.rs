//! A consistent copy of a data directory, also while its server runs, and bringing one back.
//!
//! The order makes it consistent. The journal is copied first, so that it is never ahead of the database; then the
//! database, from one read snapshot; then the objects that this copy names. What was live at the snapshot is deleted
//! `delete_delay` later at the earliest. If a copy takes longer than that and an object is gone, the database is copied
//! again and what it names in addition.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::lock::{DataDirLock, LockError};
use crate::metadata::MetadataError;
use crate::metadata::sqlite;

const DATABASE: &str = "registry.db";
/// Beside objects and database: identity, and keys that tokens were signed with.
const SMALL_FILES: [&str; 1] = ["store-id"];
/// More often the database isn't copied for objects that went meanwhile.
const ROUNDS_MAX: u32 = 5;

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    pub objects: u64,
    pub bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("cannot copy {from} to {to}")]
    Copy {
        from: PathBuf,
        to: PathBuf,
        source: io::Error,
    },
    #[error("{0} has no database: it is no data directory, or none with SQLite in it")]
    NoDatabase(PathBuf),
    #[error("{0} is not empty: a copy goes into a directory of its own")]
    NotEmpty(PathBuf),
    #[error("cannot copy the database")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("object {object} is missing in {directory}, or has another size than the database says")]
    Incomplete { object: String, directory: PathBuf },
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// Copies the data directory `from`, whose server may run, into the new or empty directory `to`.
pub async fn backup(from: &Path, to: &Path) -> Result<Copied, BackupError> {
    prepare(from, to)?;
    copy_small(from, to)?;
    let copy = to.join(DATABASE);
    let mut copied = Copied::default();
    for round in 1..=ROUNDS_MAX {
        let fresh = to.join("registry.db.new");
        sqlite::copy(&from.join(DATABASE), &fresh)
            .await
            .map_err(database)?;
        fs::rename(&fresh, &copy).map_err(failed(&fresh, &copy))?;
        match copy_objects(from, to, &copy, &mut copied).await? {
            None => break,
            Some(object) if round == ROUNDS_MAX => {
                return Err(BackupError::Incomplete {
                    object,
                    directory: from.to_owned(),
                });
            }
            Some(_) => {}
        }
    }
    sync(&copy, to)?;
    Ok(copied)
}

/// Makes the new or empty data directory `to` of the copy in `from`.
pub async fn restore(from: &Path, to: &Path) -> Result<Copied, BackupError> {
    prepare(from, to)?;
    let _lock = DataDirLock::take(to)?;
    copy_small(from, to)?;
    let mut copied = Copied::default();
    let names = from.join(DATABASE);
    if let Some(object) = copy_objects(from, to, &names, &mut copied).await? {
        return Err(BackupError::Incomplete {
            object,
            directory: from.to_owned(),
        });
    }
    // Last, so that a restore that broke off is no data directory.
    copy_file(&names, &to.join(DATABASE))?;
    sync(&to.join(DATABASE), to)?;
    Ok(copied)
}

fn prepare(from: &Path, to: &Path) -> Result<(), BackupError> {
    if !from.join(DATABASE).is_file() {
        return Err(BackupError::NoDatabase(from.to_owned()));
    }
    fs::create_dir_all(to).map_err(failed(from, to))?;
    let mut entries = fs::read_dir(to).map_err(failed(from, to))?;
    if entries.next().is_some() {
        return Err(BackupError::NotEmpty(to.to_owned()));
    }
    Ok(())
}

fn copy_small(from: &Path, to: &Path) -> Result<(), BackupError> {
    copy_tree(&from.join("meta"), &to.join("meta"))?;
    for name in SMALL_FILES {
        copy_file(&from.join(name), &to.join(name))?;
    }
    Ok(())
}

/// Copies what the database `names` names and `to` lacks. The first object that is gone is told.
async fn copy_objects(
    from: &Path,
    to: &Path,
    names: &Path,
    copied: &mut Copied,
) -> Result<Option<String>, BackupError> {
    for (object, size) in sqlite::objects(names).await.map_err(database)? {
        let (source, target) = (from.join(&object), to.join(&object));
        if target.exists() {
            continue;
        }
        match fs::metadata(&source) {
            Ok(found) if found.len() == size => {}
            Ok(_) => {
                return Err(BackupError::Incomplete {
                    object,
                    directory: from.to_owned(),
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(object)),
            Err(error) => return Err(failed(&source, &target)(error)),
        }
        copy_file(&source, &target)?;
        copied.objects += 1;
        copied.bytes += size;
    }
    Ok(None)
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), BackupError> {
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed(from, to))?,
    };
    for entry in entries {
        let source = entry.map_err(failed(from, to))?.path();
        let Some(name) = source.file_name() else { continue };
        let target = to.join(name);
        if source.is_dir() {
            copy_tree(&source, &target)?;
        } else if source.exists() {
            copy_file(&source, &target)?;
        }
    }
    Ok(())
}

/// Durable: a copy that is lost with the power is none.
fn copy_file(from: &Path, to: &Path) -> Result<(), BackupError> {
    let copy = || -> io::Result<()> {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(from, to)?;
        File::open(to)?.sync_all()
    };
    match copy() {
        // A part of the journal that a snapshot has replaced meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !from.exists() => Ok(()),
        done => done.map_err(failed(from, to)),
    }
}

fn sync(file: &Path, directory: &Path) -> Result<(), BackupError> {
    File::open(file)
        .and_then(|file| file.sync_all())
        .and_then(|()| File::open(directory)?.sync_all())
        .map_err(failed(file, directory))
}

fn failed(from: &Path, to: &Path) -> impl Fn(io::Error) -> BackupError + use<> {
    let (from, to) = (from.to_owned(), to.to_owned());
    move |source| BackupError::Copy {
        from: from.clone(),
        to: to.clone(),
        source,
    }
}

fn database(error: MetadataError) -> BackupError {
    BackupError::Database(Box::new(error))
}
