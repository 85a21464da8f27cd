//! Files that are read again when they change.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// What changes with a file's content, whether it is written in place or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self {
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

impl Stamp {
    /// Whether both are of one file, however it was written since.
    pub(crate) fn same_file(&self, other: &Self) -> bool {
        self.inode == other.inode
    }
}
