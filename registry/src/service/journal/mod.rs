//! The metadata journal: what the database knows of manifests and tags, kept in the blob store as well, so that the store
//! alone can tell everything again.
//!
//! ```text
//! meta/j/<seq>-<epoch>-<event>.zst      a segment: the events up to number <event>, one JSON object a line
//! meta/s/<seq>/<part>.zst               a snapshot: every manifest and its tags when segment <seq> was the last
//! meta/s/<seq>/done                     the snapshot is complete
//! ```
//!
//! One process at a time writes (a job under a lease, whose holders <epoch> counts). A segment is written before the
//! database records it: after a crash between the two its events come once more, which changes nothing, since replaying is
//! idempotent. Because a snapshot is read after segment <seq>, and all later segments are replayed over it, it needs no
//! lock.

mod format;
mod names;
mod rebuild;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::jobs::{Next, Scope, Turn};
use super::{Jobs, Registry, Result};
use crate::metadata::JournalPosition;
use format::{Record, Segment};
use names::Names;
pub(crate) use rebuild::rebuild;

/// What was acknowledged longer ago is in the journal.
const ROUND: Duration = Duration::from_secs(1);
/// After this long a turn ends, so that its time and its failures are told now and then.
const ROUNDS_A_TURN: u32 = 60;
const EVENTS_A_SEGMENT: u32 = 1000;
/// A new snapshot after so many segments, so that the journal stays short.
const SEGMENTS_MAX: i64 = 2000;
/// A part of a snapshot, before compression.
const PART_BYTES: usize = 8 << 20;
const MANIFESTS_A_PAGE: u32 = 100;

impl Registry {
    /// Keeps the journal for the life of the server.
    pub(crate) fn keep_journal(self: &Arc<Self>, jobs: &Jobs) {
        let registry = Arc::clone(self);
        jobs.start("journal", ROUND, Scope::Singleton, move |turn| {
            let registry = Arc::clone(&registry);
            async move {
                registry.close_gap().await?;
                for _ in 0..ROUNDS_A_TURN {
                    // Asked first, so that what came before the stop is written after it.
                    let stopping = turn.is_stopping();
                    registry.journal_events(&turn).await?;
                    if stopping {
                        break;
                    }
                    tokio::time::sleep(ROUND).await;
                }
                registry.snapshot_if_due().await?;
                Ok(Next::GoOn)
            }
        });
    }

    /// Writes all events that the journal lacks.
    pub(crate) async fn journal_events(&self, turn: &Turn) -> Result<()> {
        loop {
            let events = self.metadata.events_to_journal(EVENTS_A_SEGMENT).await?;
            let Some(last) = events.last().map(|event| event.id) else {
                return Ok(());
            };
            let position = self.metadata.journal_position().await?;
            let head = position.head + 1;
            let ids: Vec<i64> = events.iter().map(|event| event.id).collect();
            let mut segment = Segment::default();
            for record in events.into_iter().filter_map(Record::of) {
                segment.add(&record)?;
            }
            let name = names::segment(head, turn.epoch.unwrap_or(0), last);
            self.store.put_file(&name, segment.finish()?).await?;
            let all_told = !self.tells_events();
            self.metadata.mark_journaled(&ids, head, all_told).await?;
            if ids.len() < EVENTS_A_SEGMENT as usize {
                return Ok(());
            }
        }
    }

    async fn snapshot_if_due(&self) -> Result<()> {
        let position = self.metadata.journal_position().await?;
        let names = Names::list(&*self.store).await?;
        let last = names.snapshot();
        let old = last.is_none_or(|last| position.head - last >= SEGMENTS_MAX);
        if position.head == 0 || last == Some(position.head) || !(old || names.is_a_day_old()) {
            return Ok(());
        }
        self.write_snapshot(position).await?;
        for name in names.before(position.head) {
            self.store.delete_file(name).await?;
        }
        Ok(())
    }

    /// A journal that was copied before its database lacks what came in between, which only the database has: a snapshot
    /// has it. Before the next segment, after which nobody would see that some are missing.
    async fn close_gap(&self) -> Result<()> {
        let position = self.metadata.journal_position().await?;
        let journal = Names::list(&*self.store).await?.position();
        if journal.head >= position.head {
            return Ok(());
        }
        tracing::info!(
            journal = journal.head,
            database = position.head,
            "the journal lacks segments: a snapshot takes their place"
        );
        self.write_snapshot(position).await
    }

    /// Writes all manifests and their tags.
    pub(crate) async fn write_snapshot(&self, position: JournalPosition) -> Result<()> {
        let (mut after, mut part, mut segment) = (0, 0, Segment::default());
        loop {
            let page = self.metadata.manifests_after(after, MANIFESTS_A_PAGE).await?;
            let full = page.len() == MANIFESTS_A_PAGE as usize;
            for (id, manifest) in page {
                after = id;
                segment.add(&Record::from(manifest))?;
            }
            if segment.len() > PART_BYTES || !full {
                let name = names::snapshot_part(position.head, part);
                self.store
                    .put_file(&name, std::mem::take(&mut segment).finish()?)
                    .await?;
                part += 1;
            }
            if !full {
                break;
            }
        }
        let done = serde_json::json!({ "parts": part, "last_event": position.last_event, "at": names::now_seconds() });
        let name = names::snapshot_done(position.head);
        self.store.put_file(&name, Bytes::from(done.to_string())).await?;
        tracing::info!(
            segment = position.head,
            parts = part,
            "wrote a snapshot of the metadata"
        );
        Ok(())
    }

    /// Whether the blob store's journal knows of more than the database: then that is an old one, put back.
    pub(crate) async fn journal_ahead(&self) -> Result<Option<JournalAhead>> {
        // In this order: another replica may be writing both, the database first.
        let theirs = Names::list(&*self.store).await?.position();
        let ours = self.metadata.journal_position().await?;
        let ahead = theirs.last_event > ours.last_event;
        Ok(ahead.then_some(JournalAhead {
            database: ours.last_event,
            store: theirs.last_event,
        }))
    }
}

/// The last event of either.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "the database is older than the blob store (its last change is number {database}, the journal's {store}), so the \
     server is read-only and deletes nothing: bring the newer database back, or run `layeryard rebuild-metadata`, which \
     replays what is missing"
)]
pub(crate) struct JournalAhead {
    pub(crate) database: i64,
    pub(crate) store: i64,
}
