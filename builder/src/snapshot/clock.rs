//! Instants that order what lies on disk: a step starts after everything below it was written.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a step waits for the file system's clock to pass the last instant. A clock that was set back further than
/// this makes old files look new, which costs digests that can be repeated, not correctness.
const WAIT_LIMIT: Duration = Duration::from_millis(250);
const WAIT_STEP: Duration = Duration::from_millis(1);
const NANOSECONDS: i64 = 1_000_000_000;
const MICROSECOND: i64 = 1_000;

/// Hands out instants in increasing order, in nanoseconds since 1970.
pub struct Clock {
    /// On the snapshots' file system, whose coarse clock is the one that counts.
    probe_dir: PathBuf,
    probes: AtomicU64,
    last: AtomicI64,
}

impl Clock {
    pub(super) fn new(probe_dir: PathBuf) -> Self {
        Self {
            probe_dir,
            probes: AtomicU64::new(0),
            last: AtomicI64::new(0),
        }
    }

    /// An instant for files that are given their times: later than all before; never a whole second, so that a time out
    /// of an archive is not taken for it; but whole microseconds, because that is what many tools (busybox's `cp -p`,
    /// say) keep of a time they copy.
    pub fn instant(&self) -> i64 {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as i64);
        let later = |last: i64| {
            let next = (now.max(last) / MICROSECOND + 1) * MICROSECOND;
            if next % NANOSECONDS == 0 {
                next + MICROSECOND
            } else {
                next
            }
        };
        let update = self
            .last
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(later(last)));
        update.map_or(now, later)
    }

    /// A time that no file written from now on is older than, and every instant handed out before is. Cut to the
    /// microsecond, so that a copy whose time was cut is not older either.
    pub fn start(&self) -> io::Result<i64> {
        let deadline = std::time::Instant::now() + WAIT_LIMIT;
        loop {
            let now = self.probe()? / MICROSECOND * MICROSECOND;
            let last = self.last.load(Ordering::Relaxed);
            if now > last || std::time::Instant::now() >= deadline {
                self.last.fetch_max(now, Ordering::Relaxed);
                return Ok(now);
            }
            thread::sleep(WAIT_STEP);
        }
    }

    /// A time that no file written until now is newer than.
    pub fn end(&self) -> io::Result<i64> {
        let now = self.probe()?;
        self.last.fetch_max(now, Ordering::Relaxed);
        Ok(now)
    }

    fn probe(&self) -> io::Result<i64> {
        let number = self.probes.fetch_add(1, Ordering::Relaxed);
        let path = self.probe_dir.join(format!("probe-{number}"));
        let metadata = File::create(&path)?.metadata()?;
        std::fs::remove_file(&path)?;
        Ok(metadata.mtime() * NANOSECONDS + metadata.mtime_nsec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_increase_and_steps_start_after_them() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::new(dir.path().to_owned());
        let mut last = 0;
        for _ in 0..100 {
            let next = clock.instant();
            assert!(next > last && next % NANOSECONDS != 0 && next % MICROSECOND == 0);
            last = next;
        }
        let start = clock.start().unwrap();
        assert!(start > last && start % MICROSECOND == 0);
        assert!(clock.end().unwrap() >= start);
        assert!(clock.instant() > start);
    }
}
