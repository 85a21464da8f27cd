//! What must stay free: a full disk would stop the database, and with it the collection that could make room.

use std::io;
use std::path::Path;

/// Kept where nobody says how much …
const RESERVE_BYTES: u64 = 256 * 1024 * 1024;
/// … but no more than this part of the file system.
const RESERVE_PART: u64 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    pub(super) free: u64,
    total: u64,
}

impl Space {
    /// Of the file system that `path` lies in.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let found = rustix::fs::statvfs(path)?;
        Ok(Self {
            free: found.f_bavail.saturating_mul(found.f_frsize),
            total: found.f_blocks.saturating_mul(found.f_frsize),
        })
    }

    /// What of it is not for blobs: as much as somebody wants it to be, or a little.
    pub(super) fn reserve(&self, wanted: Option<u64>) -> u64 {
        wanted.unwrap_or_else(|| RESERVE_BYTES.min(self.total / RESERVE_PART))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_disk_keeps_a_part_and_a_large_one_no_more_than_is_needed() {
        let space = |total| Space { free: 0, total };
        assert_eq!(space(1 << 30).reserve(None), (1 << 30) / 100);
        assert_eq!(space(1 << 40).reserve(None), RESERVE_BYTES);
        assert_eq!(space(1 << 30).reserve(Some(0)), 0);
        assert_eq!(space(1 << 30).reserve(Some(1 << 29)), 1 << 29);
        let here = Space::at(Path::new("/")).unwrap();
        assert!(here.free <= here.total && here.total > 0);
    }
}
