//! The names of the journal's files.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::metadata::JournalPosition;
use crate::storage::{BlobStore, Result};

const SEGMENTS: &str = "meta/j/";
const SNAPSHOTS: &str = "meta/s/";
const DAY_SECONDS: u64 = 24 * 3600;

pub(super) fn segment(seq: i64, epoch: i64, last_event: i64) -> String {
    format!("{SEGMENTS}{seq:012}-{epoch:08}-{last_event:015}.zst")
}

pub(super) fn snapshot_part(seq: i64, part: u32) -> String {
    format!("{SNAPSHOTS}{seq:012}/{part:06}.zst")
}

pub(super) fn snapshot_done(seq: i64) -> String {
    format!("{SNAPSHOTS}{seq:012}/done-{:012}", now_seconds())
}

pub(super) fn now_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// All files of the journal.
pub(super) struct Names {
    segments: Vec<String>,
    snapshots: Vec<String>,
}

impl Names {
    pub(super) async fn list(store: &dyn BlobStore) -> Result<Self> {
        Ok(Self {
            segments: store.list_files(SEGMENTS).await?,
            snapshots: store.list_files(SNAPSHOTS).await?,
        })
    }

    /// The segment at which the last complete snapshot was made.
    pub(super) fn snapshot(&self) -> Option<i64> {
        self.done().map(|(seq, _)| seq)
    }

    pub(super) fn is_a_day_old(&self) -> bool {
        self.done()
            .is_none_or(|(_, made)| made + DAY_SECONDS <= now_seconds())
    }

    fn done(&self) -> Option<(i64, u64)> {
        self.snapshots
            .iter()
            .filter_map(|name| {
                let (seq, made) = name.strip_prefix(SNAPSHOTS)?.split_once("/done-")?;
                Some((seq.parse().ok()?, made.parse().ok()?))
            })
            .max()
    }

    /// What a rebuild reads, in order: the last complete snapshot, and the segments since. A snapshot that a database with
    /// journal head `have` is younger than would move its tags back.
    pub(super) fn to_replay(&self, have: i64) -> Vec<&str> {
        let snapshot = self.snapshot().filter(|seq| *seq > have);
        let parts = self
            .snapshots
            .iter()
            .filter(|name| name.ends_with(".zst") && snapshot.is_some() && snapshot_seq(name) == snapshot);
        let after = snapshot.unwrap_or(0);
        let segments = self
            .segments
            .iter()
            .filter(|name| segment_position(name).is_some_and(|position| position.head > after));
        parts.chain(segments).map(String::as_str).collect()
    }

    /// What a snapshot at `seq` replaces.
    pub(super) fn before(&self, seq: i64) -> Vec<&str> {
        let segments = self
            .segments
            .iter()
            .filter(|name| segment_position(name).is_some_and(|position| position.head < seq));
        let snapshots = self
            .snapshots
            .iter()
            .filter(|name| snapshot_seq(name).is_some_and(|other| other < seq));
        segments.chain(snapshots).map(String::as_str).collect()
    }

    /// How far the journal goes. The segment at which a snapshot was made is kept, so there is always one.
    pub(super) fn position(&self) -> JournalPosition {
        let segments = self.segments.iter().filter_map(|name| segment_position(name));
        let begin = JournalPosition {
            head: self.snapshot().unwrap_or_default(),
            last_event: 0,
        };
        segments.fold(begin, |furthest, position| JournalPosition {
            head: furthest.head.max(position.head),
            last_event: furthest.last_event.max(position.last_event),
        })
    }
}

pub(super) fn last_event_of(name: &str) -> Option<i64> {
    segment_position(name).map(|position| position.last_event)
}

fn segment_position(name: &str) -> Option<JournalPosition> {
    let mut parts = name.strip_prefix(SEGMENTS)?.strip_suffix(".zst")?.split('-');
    let head = parts.next()?.parse().ok()?;
    let last_event = parts.nth(1)?.parse().ok()?;
    Some(JournalPosition { head, last_event })
}

fn snapshot_seq(name: &str) -> Option<i64> {
    name.strip_prefix(SNAPSHOTS)?.split_once('/')?.0.parse().ok()
}
