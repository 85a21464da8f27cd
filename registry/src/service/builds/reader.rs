//! Reading a build's events along, from any number on.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::api::BuildState;
use tokio::sync::watch;

use super::build::{Build, Progress};
use super::spool;

/// A stream that is silent for this long is sent an empty line, so that nothing on the way takes it for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The events after a number, as lines of JSON. While it lives, the build counts as watched.
pub(crate) struct EventReader {
    build: Arc<Build>,
    changes: watch::Receiver<Progress>,
    offset: u64,
}

impl EventReader {
    pub(super) async fn new(build: Arc<Build>, after: u64) -> io::Result<Self> {
        build.state.lock().readers += 1;
        let changes = build.progress.subscribe();
        // From here on dropping ends the watch.
        let mut reader = Self {
            build,
            changes,
            offset: 0,
        };
        let extent = reader.changes.borrow().extent;
        reader.offset = spool::offset_after(&reader.build.spool_path, after, extent).await?;
        Ok(reader)
    }

    /// The next piece; `None` when the build has ended and all was given.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let progress = *self.changes.borrow_and_update();
            let end = progress.extent.length;
            if self.offset < end {
                let piece = spool::read(&self.build.spool_path, self.offset, end).await?;
                self.offset += piece.len() as u64;
                return Ok(Some(piece));
            }
            if progress.state == BuildState::Finished {
                return Ok(None);
            }
            match tokio::time::timeout(KEEP_ALIVE, self.changes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Ok(None),
                Err(_) => return Ok(Some(Bytes::from_static(b"\n"))),
            }
        }
    }
}

impl Drop for EventReader {
    fn drop(&mut self) {
        let mut state = self.build.state.lock();
        state.readers -= 1;
        state.unwatched_since = Instant::now();
    }
}
