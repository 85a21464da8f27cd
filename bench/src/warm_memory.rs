//! Keeps the machine's memory in use, as on a machine that has run for a while.
//!
//! A hypervisor may give its guest memory page by page when it is first used, and take back what is free (virtio's free page
//! reporting). Each new page then costs some 10 µs: on such a machine a MiB written to the page cache takes 2.5 ms more
//! than on others, for every contestant. So all memory is filled with the page cache of a file without content; whoever
//! needs pages gets those.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;

use anyhow::{Context, Result};

/// Memory that may stay free.
const FREE_BYTES_MAX: u64 = 768 << 20;
/// What is read before free memory is looked at again.
const STRIDE_BYTES: u64 = 64 << 20;
const READ_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct WarmMemory {
    /// A file of holes as long as all memory. It has no name: nothing is left of it.
    holes: File,
    length_bytes: u64,
    /// Where reading goes on: what was read first has been given away first.
    position: Mutex<u64>,
}

impl WarmMemory {
    pub(crate) fn new(parent: &Path) -> Result<Self> {
        let length_bytes = meminfo("MemTotal")?.next_multiple_of(STRIDE_BYTES);
        let holes = tempfile::tempfile_in(parent)
            .with_context(|| format!("cannot make a file in {}", parent.display()))?;
        holes.set_len(length_bytes)?;
        Ok(Self {
            holes,
            length_bytes,
            position: Mutex::new(0),
        })
    }

    /// Reads until little memory is free.
    pub(crate) fn fill(&self) -> Result<()> {
        let mut position = self.position.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = vec![0; READ_BYTES];
        for _ in 0..self.length_bytes / STRIDE_BYTES {
            if meminfo("MemFree")? <= FREE_BYTES_MAX {
                break;
            }
            for offset in (*position..*position + STRIDE_BYTES).step_by(READ_BYTES) {
                self.holes.read_exact_at(&mut buffer, offset)?;
            }
            *position = (*position + STRIDE_BYTES) % self.length_bytes;
        }
        Ok(())
    }
}

/// A value of /proc/meminfo, in bytes.
pub(crate) fn meminfo(name: &str) -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kibibytes = value.and_then(|value| value.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kibibytes.with_context(|| format!("/proc/meminfo has no {name}"))? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read() {
        assert!(meminfo("MemTotal").unwrap() > meminfo("MemFree").unwrap());
        assert!(meminfo("Mem").is_err());
    }
}
