//! A request's body on its way to the store: received, hashed and written at the same time.
//!
//! One batch is hashed and written at the same time, while the next one is received. Two batches are all the memory an
//! upload takes, however large it is. A body that fits into one small batch is only collected.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use oci::{HashState, Hasher};

use super::batches::{Batch, BodyStream, End, SMALL_BYTES, drain, next_batch};
use super::{Chunk, Registry, RegistryError, Result, Session};
use crate::metadata::{Checkpoint, MetadataStore};
use crate::storage::{
    ObjectName, Settle, Settled, StorageError, Upload, UploadId, UploadLog, UploadNotes, UploadWriter,
};
use crate::traces::Traced as _;

/// Progress is recorded after this many bytes …
const CHECKPOINT_BYTES: u64 = 256 * 1024 * 1024;
/// … and after this long, which also tells that the writer lives (it is given up after three times this).
const CHECKPOINT_EVERY: Duration = Duration::from_secs(20);

/// Where a body goes.
pub(super) struct Source<'a> {
    pub(super) session: &'a Session,
    pub(super) epoch: i64,
    /// Where the session stands.
    pub(super) at: Upload,
    /// Has seen what the session has.
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

impl Registry {
    /// Receives a body. If it breaks off, what came is recorded before the error is returned.
    pub(super) async fn receive(
        &self,
        source: Source<'_>,
        announced: Chunk,
        mut body: BodyStream,
    ) -> Result<Received> {
        let length = announced.length.unwrap_or_default();
        if let Err(error) = self.require_size(source.at.offset.saturating_add(length)) {
            drain(body).await;
            return Err(error);
        }
        let mut pulse = Pulse {
            registry: self,
            session: source.session,
            epoch: source.epoch,
            told: Instant::now(),
        };
        let first = pulse.meanwhile(next_batch(&mut body, SMALL_BYTES)).await?;
        if matches!(first.end, End::Whole) {
            let mut hasher = source.hasher;
            for piece in &first.pieces {
                hasher.update(piece);
            }
            let offset = source.at.offset + first.bytes as u64;
            self.require_size(offset)?;
            return Ok(Received {
                hasher,
                offset,
                pieces: first.pieces,
                writer: None,
            });
        }
        let start = source.at.offset;
        let writer = self.writer(source.session, source.epoch, source.at).await?;
        let mut ingest = Ingest {
            pulse,
            hasher: source.hasher,
            offset: start,
            writer,
            recorded: start,
        };
        let _turn = self.receiving.begin();
        if let Err(error) = ingest.run(first, &mut body).await {
            // A client that is told so can be told what to do about it.
            let answered = match &error {
                RegistryError::Storage(error) => error.is_full(),
                RegistryError::BlobTooLarge { .. } => true,
                _ => false,
            };
            if answered {
                drain(body).await;
            }
            return Err(error);
        }
        Ok(Received {
            hasher: ingest.hasher,
            offset: ingest.offset,
            pieces: Vec::new(),
            writer: Some(ingest.writer),
        })
    }

    fn require_size(&self, bytes: u64) -> Result<()> {
        let limit = self.limits.blob_size_bytes_max;
        if bytes > limit {
            return Err(RegistryError::BlobTooLarge { limit });
        }
        Ok(())
    }

    /// Opens a session's bytes for the writer of `epoch`.
    pub(super) async fn writer(
        &self,
        session: &Session,
        epoch: i64,
        at: Upload,
    ) -> Result<Box<dyn UploadWriter>> {
        let log = Log {
            metadata: Arc::clone(&self.metadata),
            upload: session.id,
            epoch,
        };
        Ok(self.store.open_upload(at, Box::new(log)).await?)
    }
}

/// Records in the database what an upload consists of.
struct Log {
    metadata: Arc<dyn MetadataStore>,
    upload: UploadId,
    epoch: i64,
}

#[async_trait]
impl UploadLog for Log {
    async fn record(&self, key: Option<&ObjectName>, notes: UploadNotes) -> Result<(), StorageError> {
        let noted = self
            .metadata
            .note_upload(self.upload, self.epoch, key.cloned(), notes);
        match noted.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(StorageError::NotWriter(self.upload)),
            Err(error) => Err(StorageError::Unrecorded {
                upload: self.upload,
                source: Box::new(error),
            }),
        }
    }
}

/// Has everything kept where the next request finds it; returns what to record with it.
pub(super) async fn settled_now(writer: &mut dyn UploadWriter) -> Result<Option<UploadNotes>> {
    match writer.settle(Settle::Now).await? {
        Settled::Done(notes) => Ok(notes),
        Settled::NotYet => Ok(None),
    }
}

/// Tells that a session's writer lives. Who is silent for too long loses the session to the next request, and must not
/// write a byte then: both would write to the same place.
struct Pulse<'a> {
    registry: &'a Registry,
    session: &'a Session,
    epoch: i64,
    told: Instant,
}

impl Pulse<'_> {
    /// Waits for something that may take as long as a slow client wants. An error: the session is another's now.
    async fn meanwhile<T>(&mut self, waiting: impl Future<Output = T>) -> Result<T> {
        let mut waiting = pin!(waiting);
        loop {
            let next = self.told + CHECKPOINT_EVERY;
            match tokio::time::timeout_at(next.into(), &mut waiting).await {
                Ok(value) => return Ok(value),
                Err(_) => self.tell(0, None, None).await?,
            }
        }
    }

    /// With a state of the hash: what comes with it is what the session has.
    async fn tell(
        &mut self,
        offset: u64,
        hash_state: Option<HashState>,
        notes: Option<UploadNotes>,
    ) -> Result<()> {
        let checkpoint = Checkpoint {
            id: self.session.id,
            epoch: self.epoch,
            offset,
            hash_state,
            notes,
            release: false,
        };
        let recording = self.registry.metadata.checkpoint_upload(checkpoint);
        let span = self.registry.query("checkpoint_upload");
        if !recording.within(span).await? {
            return Err(RegistryError::UploadUnknown(self.session.id));
        }
        self.told = Instant::now();
        Ok(())
    }
}

struct Ingest<'a> {
    pulse: Pulse<'a>,
    hasher: Hasher,
    offset: u64,
    writer: Box<dyn UploadWriter>,
    /// How many bytes the next request would find.
    recorded: u64,
}

impl Ingest<'_> {
    async fn run(&mut self, first: Batch, body: &mut BodyStream) -> Result<()> {
        let begin = self.offset;
        let mut batch = first;
        loop {
            match batch.end {
                End::NotYet => {
                    let limit = self.pulse.registry.receiving.batch_bytes();
                    let mut reading = pin!(next_batch(body, limit));
                    let mut next = None;
                    {
                        let mut processing = pin!(self.process(batch.pieces, batch.bytes));
                        loop {
                            tokio::select! {
                                biased;
                                done = &mut processing => break done?,
                                batch = &mut reading, if next.is_none() => next = Some(batch),
                            }
                        }
                    }
                    batch = match next {
                        Some(next) => next,
                        None => self.pulse.meanwhile(reading).await?,
                    };
                    self.record_sometimes().await?;
                }
                End::Whole => return self.process(batch.pieces, batch.bytes).await,
                End::Broken(source) => {
                    self.process(batch.pieces, batch.bytes).await?;
                    let notes = settled_now(self.writer.as_mut()).await?;
                    self.record(notes).await?;
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
        self.pulse.registry.require_size(self.offset + bytes as u64)?;
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
        let overdue = self.pulse.told.elapsed() >= CHECKPOINT_EVERY;
        if self.offset - self.recorded >= CHECKPOINT_BYTES || overdue {
            match self.writer.settle(Settle::IfCheap).await? {
                Settled::Done(notes) => self.record(notes).await?,
                Settled::NotYet if overdue => self.pulse.tell(0, None, None).await?,
                Settled::NotYet => {}
            }
        }
        Ok(())
    }

    /// Everything so far is in the store.
    async fn record(&mut self, notes: Option<UploadNotes>) -> Result<()> {
        let state = self.hasher.save();
        self.pulse.tell(self.offset, Some(state), notes).await?;
        self.recorded = self.offset;
        Ok(())
    }
}
