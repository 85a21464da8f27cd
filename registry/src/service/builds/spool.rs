//! A build's events on disk: one line of JSON each, numbered from 1, only ever appended to.
//!
//! Readers are given byte ranges that end at a line's end, so a reader never sees half an event, however slow it is,
//! and no event is kept in memory for it.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use client::api::NumberedEvent;
use serde::{Deserialize, Serialize};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _, BufReader};

/// A build's events may take this much; beyond it output and progress are left out.
pub(super) const SPOOL_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// What is kept for the events that matter when output has filled the spool.
const RESERVE_BYTES: u64 = 8 * 1024 * 1024;
/// How much a reader is given at once.
const READ_BYTES: u64 = 256 * 1024;

/// Writes events. One a build.
pub(super) struct Spool {
    path: PathBuf,
    file: Option<File>,
    last_seq: u64,
    length: u64,
    truncated: bool,
    /// What lies behind `length` is the rest of a write that failed or was given up.
    torn: bool,
}

/// How far a spool has been written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Extent {
    pub(super) last_seq: u64,
    pub(super) length: u64,
}

impl Spool {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            last_seq: 0,
            length: 0,
            truncated: false,
            torn: false,
        }
    }

    /// Appends events with the next numbers.
    pub(super) async fn append(&mut self, at_ms: u64, events: Vec<serde_json::Value>) -> io::Result<Extent> {
        let mut lines = Vec::new();
        let mut seq = self.last_seq;
        for event in events {
            let end = self.length + lines.len() as u64;
            let Some(event) = self.admitted(event, end) else {
                continue;
            };
            seq += 1;
            serde_json::to_writer(&mut lines, &NumberedEvent { seq, at_ms, event })?;
            lines.push(b'\n');
        }
        if lines.is_empty() {
            return Ok(self.extent());
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let options = File::options().append(true).create(true).open(&self.path).await?;
                self.file.insert(options)
            }
        };
        if self.torn {
            file.set_len(self.length).await?;
        }
        self.torn = true;
        file.write_all(&lines).await?;
        file.flush().await?;
        self.torn = false;
        self.length += lines.len() as u64;
        self.last_seq = seq;
        Ok(self.extent())
    }

    fn extent(&self) -> Extent {
        Extent {
            last_seq: self.last_seq,
            length: self.length,
        }
    }

    /// The event to write at `end`; in a full spool a remark instead of the first one left out, then none.
    fn admitted(&mut self, event: serde_json::Value, end: u64) -> Option<serde_json::Value> {
        let bulky = matches!(event["type"].as_str(), Some("output" | "progress"));
        let limit = if bulky {
            SPOOL_BYTES_MAX
        } else {
            SPOOL_BYTES_MAX + RESERVE_BYTES
        };
        if end < limit {
            return Some(event);
        }
        if std::mem::replace(&mut self.truncated, true) {
            return None;
        }
        Some(serde_json::json!({
            "type": "warning",
            "message": format!("the build's output exceeds {SPOOL_BYTES_MAX} bytes: the rest is left out"),
            "line": null,
            "code": null,
        }))
    }
}

/// How far a spool that nobody writes any more goes; a line cut by a crash doesn't count.
pub(super) async fn extent_of(path: &Path) -> io::Result<Extent> {
    let mut extent = Extent::default();
    let Some(mut lines) = open(path).await?.map(BufReader::new) else {
        return Ok(extent);
    };
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = lines.read_until(b'\n', &mut line).await?;
        if !line.ends_with(b"\n") {
            return Ok(extent);
        }
        extent.length += read as u64;
        extent.last_seq += 1;
    }
}

/// Where the events after number `after` begin.
pub(super) async fn offset_after(path: &Path, after: u64, extent: Extent) -> io::Result<u64> {
    if after >= extent.last_seq {
        return Ok(extent.length);
    }
    let Some(mut lines) = open(path).await?.map(BufReader::new) else {
        return Ok(extent.length);
    };
    let mut offset = 0;
    let mut line = Vec::new();
    // Numbers are consecutive, so the line's place is its number.
    for _ in 0..after {
        line.clear();
        offset += lines.read_until(b'\n', &mut line).await? as u64;
    }
    Ok(offset)
}

/// The next piece of the bytes in `offset..end`.
pub(super) async fn read(path: &Path, offset: u64, end: u64) -> io::Result<Bytes> {
    let Some(mut file) = open(path).await? else {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the build's events are gone",
        ));
    };
    file.seek(io::SeekFrom::Start(offset)).await?;
    let mut piece = vec![0; READ_BYTES.min(end - offset) as usize];
    file.read_exact(&mut piece).await?;
    Ok(piece.into())
}

async fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path).await {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn events_are_numbered_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.ndjson");
        let mut spool = Spool::new(path.clone());
        spool
            .append(1, vec![json!({"type": "a"}), json!({"type": "b"})])
            .await
            .unwrap();
        let extent = spool.append(2, vec![json!({"type": "c"})]).await.unwrap();
        assert_eq!(extent.last_seq, 3);
        let from = offset_after(&path, 2, extent).await.unwrap();
        let rest = read(&path, from, extent.length).await.unwrap();
        let event: NumberedEvent = serde_json::from_slice(&rest).unwrap();
        assert_eq!((event.seq, event.event["type"].as_str()), (3, Some("c")));
        assert_eq!(offset_after(&path, 9, extent).await.unwrap(), extent.length);
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| io::Write::write_all(&mut file, b"{\"seq\":4,"))
            .unwrap();
        assert_eq!(
            extent_of(&path).await.unwrap(),
            extent,
            "a cut line doesn't count"
        );
    }

    /// As on a disk that was full for a moment: readers go by the length, so nothing may lie in between.
    #[tokio::test]
    async fn what_a_failed_write_left_is_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.ndjson");
        let mut spool = Spool::new(path.clone());
        spool.append(1, vec![json!({"type": "a"})]).await.unwrap();
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| io::Write::write_all(&mut file, b"{\"seq\":2,\"at"))
            .unwrap();
        spool.torn = true;
        let extent = spool.append(2, vec![json!({"type": "b"})]).await.unwrap();
        assert_eq!(extent_of(&path).await.unwrap(), extent);
        let from = offset_after(&path, 1, extent).await.unwrap();
        let rest = read(&path, from, extent.length).await.unwrap();
        let event: NumberedEvent = serde_json::from_slice(&rest).unwrap();
        assert_eq!((event.seq, event.event["type"].as_str()), (2, Some("b")));
    }

    #[tokio::test]
    async fn a_full_spool_keeps_what_matters() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(dir.path().join("b.ndjson"));
        spool.length = SPOOL_BYTES_MAX;
        assert_eq!(
            spool.admitted(json!({"type": "finished"}), spool.length).unwrap()["type"],
            "finished"
        );
        assert_eq!(
            spool.admitted(json!({"type": "output"}), spool.length).unwrap()["type"],
            "warning"
        );
        assert_eq!(spool.admitted(json!({"type": "output"}), spool.length), None);
        assert!(
            spool
                .admitted(json!({"type": "step_failed"}), spool.length)
                .is_some()
        );
    }
}
