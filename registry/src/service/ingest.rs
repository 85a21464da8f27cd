//! A request's body on its way to the store: received, hashed and written at the same time.
//!
//! One batch is hashed and written at the same time, while the next one is received. Two batches are all
//! the memory an upload takes, however large it is. A body that fits into one small batch is only collected.

use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use oci::Hasher;

use super::error::BodyError;
use super::{Registry, RegistryError, Result, Session};
use crate::metadata::Checkpoint;
use crate::storage::UploadWriter;

/// A request's body.
pub(crate) type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>;

/// What is hashed and written at once.
const BATCH_BYTES: usize = 256 * 1024;

/// A body up to this is hashed where it is and stored in one go: waking a thread would cost more.
const SMALL_BYTES: usize = 64 * 1024;

/// Progress is recorded after this many bytes …
const CHECKPOINT_BYTES: u64 = 256 * 1024 * 1024;
/// … and after this long, which also tells that the writer lives (it is given up after three times this).
const CHECKPOINT_EVERY: Duration = Duration::from_secs(20);

/// Where a body goes.
pub(super) struct Source<'a> {
    pub(super) session: &'a Session,
    pub(super) epoch: i64,
    pub(super) start: u64,
    /// Has seen everything before `start`.
    pub(super) hasher: Hasher,
}

/// A body that has come in whole.
pub(super) struct Received {
    pub(super) hasher: Hasher,
    /// Where the session stands with it.
    pub(super) offset: u64,
    /// A small body, not written yet.
    pub(super) pieces: Vec<Bytes>,
    /// The writer of a larger one.
    pub(super) writer: Option<Box<dyn UploadWriter>>,
}

struct Batch {
    pieces: Vec<Bytes>,
    bytes: usize,
    end: End,
}

enum End {
    NotYet,
    Whole,
    Broken(BodyError),
}

impl Registry {
    /// Receives a body. If it breaks off, what came is recorded before the error is returned.
    pub(super) async fn receive(&self, source: Source<'_>, mut body: BodyStream) -> Result<Received> {
        let first = next_batch(&mut body, SMALL_BYTES).await;
        if matches!(first.end, End::Whole) {
            let mut hasher = source.hasher;
            for piece in &first.pieces {
                hasher.update(piece);
            }
            let offset = source.start + first.bytes as u64;
            return Ok(Received {
                hasher,
                offset,
                pieces: first.pieces,
                writer: None,
            });
        }
        let writer = self.store.open_upload(source.session.id, source.start).await?;
        let mut ingest = Ingest {
            registry: self,
            hasher: source.hasher,
            offset: source.start,
            session: source.session,
            epoch: source.epoch,
            writer,
            recorded: (source.start, Instant::now()),
        };
        ingest.run(first, &mut body).await?;
        Ok(Received {
            hasher: ingest.hasher,
            offset: ingest.offset,
            pieces: Vec::new(),
            writer: Some(ingest.writer),
        })
    }
}

struct Ingest<'a> {
    registry: &'a Registry,
    session: &'a Session,
    epoch: i64,
    hasher: Hasher,
    offset: u64,
    writer: Box<dyn UploadWriter>,
    recorded: (u64, Instant),
}

impl Ingest<'_> {
    async fn run(&mut self, first: Batch, body: &mut BodyStream) -> Result<()> {
        let begin = self.offset;
        let mut batch = first;
        loop {
            match batch.end {
                End::NotYet => {
                    let (done, next) = tokio::join!(
                        self.process(batch.pieces, batch.bytes),
                        next_batch(body, BATCH_BYTES)
                    );
                    done?;
                    batch = next;
                    self.record_sometimes().await?;
                }
                End::Whole => return self.process(batch.pieces, batch.bytes).await,
                End::Broken(source) => {
                    self.process(batch.pieces, batch.bytes).await?;
                    self.record().await?;
                    return Err(RegistryError::BodyBroken {
                        received: self.offset - begin,
                        source,
                    });
                }
            }
        }
    }

    /// Writes a batch on a blocking thread and hashes it here meanwhile: a batch is a fifth of a millisecond of hashing,
    /// and another thread would have to be woken for it.
    async fn process(&mut self, pieces: Vec<Bytes>, bytes: usize) -> Result<()> {
        let to_hash = pieces.clone();
        let hasher = &mut self.hasher;
        let hashing = async {
            for piece in &to_hash {
                hasher.update(piece);
            }
        };
        // In this order: the writing thread starts before the hashing.
        let (written, ()) = tokio::join!(biased; self.writer.append(pieces), hashing);
        written?;
        self.offset += bytes as u64;
        Ok(())
    }

    async fn record_sometimes(&mut self) -> Result<()> {
        let (offset, at) = self.recorded;
        if self.offset - offset >= CHECKPOINT_BYTES || at.elapsed() >= CHECKPOINT_EVERY {
            self.record().await?;
        }
        Ok(())
    }

    async fn record(&mut self) -> Result<()> {
        let checkpoint = Checkpoint {
            id: self.session.id,
            epoch: self.epoch,
            offset: self.offset,
            hash_state: Some(self.hasher.save()),
            release: false,
        };
        if !self.registry.metadata.checkpoint_upload(checkpoint).await? {
            return Err(RegistryError::UploadUnknown(self.session.id));
        }
        self.recorded = (self.offset, Instant::now());
        Ok(())
    }
}

/// Takes what comes until it is `limit` bytes or more.
async fn next_batch(body: &mut BodyStream, limit: usize) -> Batch {
    let mut batch = Batch {
        pieces: Vec::new(),
        bytes: 0,
        end: End::NotYet,
    };
    while batch.bytes <= limit {
        match body.next().await {
            Some(Ok(piece)) => {
                batch.bytes += piece.len();
                batch.pieces.push(piece);
            }
            Some(Err(error)) => {
                batch.end = End::Broken(error);
                break;
            }
            None => {
                batch.end = End::Whole;
                break;
            }
        }
    }
    batch
}
