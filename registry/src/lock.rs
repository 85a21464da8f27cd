//! The data directory's lock: a file system store and SQLite are for exactly one process.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Held as long as the value lives; the kernel frees it when the process dies, however it does.
#[derive(Debug)]
pub(crate) struct DataDirLock {
    _file: File,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error(
        "data directory {directory} is in use by {holder}: stop that server, or choose another --data-dir"
    )]
    Held { directory: PathBuf, holder: String },
    #[error("cannot lock data directory {directory}")]
    Io { directory: PathBuf, source: io::Error },
}

impl DataDirLock {
    pub(crate) fn take(directory: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io {
            directory: directory.to_owned(),
            source,
        };
        let mut options = OpenOptions::new();
        let mut file = options
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(directory.join("lock"))
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Who holds it is only told to be helpful.
                let _ = file.read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "another process".to_owned(),
                    named => named.to_owned(),
                };
                return Err(LockError::Held {
                    directory: directory.to_owned(),
                    holder,
                });
            }
            Err(error) => return Err(failed(error.into())),
        }
        let mut note = || -> io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "process {}", std::process::id())
        };
        note().map_err(failed)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_server_is_told_who_has_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let first = DataDirLock::take(directory.path()).unwrap();
        let error = DataDirLock::take(directory.path()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        drop(first);
        DataDirLock::take(directory.path()).unwrap();
    }
}
