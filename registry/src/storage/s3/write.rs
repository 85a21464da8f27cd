//! Writing: bytes gather in a spool; what is large enough goes out as a part while the next one gathers.

use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use tokio::task::JoinSet;

use super::spool::Spool;
use super::{Notes, PART_BYTES, PART_BYTES_MIN, PARTS_MAX, Result, S3, read, uploads};
use crate::storage::{ObjectName, Settle, Settled, StorageError, Upload, UploadId, UploadLog, UploadWriter};

/// More fragments are merged into one.
const FRAGMENTS_MAX: usize = 32;
/// How much of a fragment is written to the spool at once.
const FILL_BYTES: usize = 1024 * 1024;

pub(super) struct Writer {
    store: S3,
    upload: UploadId,
    log: Box<dyn UploadLog>,
    /// What lies in the bucket; parts and fragments of this writer too, once they are there.
    notes: Notes,
    /// Whether anything is in the bucket or noted.
    noted: bool,
    /// Behind a hole for the fragments: what is not in the bucket yet.
    spool: Spool,
    /// The part on its way, with its size. It ends with the writer.
    flight: JoinSet<(io::Result<String>, u64)>,
    /// After a failure nothing is known of the bytes.
    failed: bool,
}

impl Writer {
    pub(super) async fn open(store: S3, upload: Upload, log: Box<dyn UploadLog>) -> Result<Self> {
        let mut notes = uploads::notes(&upload)?;
        let failed = failed(upload.id, "opening its spool");
        // What an earlier request merged is needed no more: the database has recorded what came of it.
        for number in notes.swept..notes.first {
            let name = uploads::fragment(upload.id, number);
            let deleted = store.delete_object(name.as_str()).await;
            deleted.map_err(store.object_failed(&name, "deleting it"))?;
        }
        notes.swept = notes.first;
        let spool = Spool::create(&store.spool, notes.fragment_bytes()).await;
        Ok(Self {
            spool: spool.map_err(failed)?,
            noted: upload.notes.is_some(),
            store,
            upload: upload.id,
            log,
            notes,
            flight: JoinSet::new(),
            failed: false,
        })
    }

    async fn take_in(&mut self, data: Vec<Bytes>) -> Result<()> {
        let mut rest = data;
        loop {
            let after = if self.store.uniform_parts {
                let room = PART_BYTES - self.spool.total();
                split(&mut rest, room)
            } else {
                Vec::new()
            };
            let appended = self.spool.append(rest).await;
            appended.map_err(failed(self.upload, "writing its spool"))?;
            if self.spool.total() >= PART_BYTES {
                self.send_part().await?;
            }
            if after.is_empty() {
                return Ok(());
            }
            rest = after;
        }
    }

    /// Sends fragments and spool as a part. Waits for the one before, so that at most two spools have bytes.
    async fn send_part(&mut self) -> Result<()> {
        self.land().await?;
        let multipart = self.multipart().await?;
        self.fill().await?;
        let number = self.notes.parts.len() + 1;
        if number > PARTS_MAX {
            let limit = PARTS_MAX as u64 * PART_BYTES;
            return Err(failed(self.upload, "sending a part")(io::Error::other(format!(
                "a blob in this store may have some {limit} bytes"
            ))));
        }
        let empty = Spool::create(&self.store.spool, 0).await;
        let full = std::mem::replace(
            &mut self.spool,
            empty.map_err(failed(self.upload, "opening its spool"))?,
        );
        self.notes.drop_fragments();
        let (store, upload) = (self.store.clone(), self.upload);
        self.flight.spawn(async move {
            let (length, body) = (full.total(), full.body(&uploads::object(upload), true));
            let added = store.add_part(upload, &multipart, number, length, body).await;
            (added, length)
        });
        Ok(())
    }

    /// Waits for the part on its way.
    async fn land(&mut self) -> Result<()> {
        let failed = failed(self.upload, "sending a part");
        while let Some(landed) = self.flight.join_next().await {
            let (etag, size) = landed.map_err(|error| failed(io::Error::other(error)))?;
            self.notes.parts.push((etag.map_err(&failed)?, size));
        }
        Ok(())
    }

    /// The multipart upload; begins it. Its name is recorded before, so that a crash leaves nothing unknown.
    async fn multipart(&mut self) -> Result<String> {
        if let Some(id) = &self.notes.multipart {
            return Ok(id.clone());
        }
        let key = uploads::object(self.upload);
        self.log.record(Some(&key), self.notes.save()).await?;
        self.noted = true;
        let id = self.store.begin_multipart(self.upload).await;
        let id = id.map_err(failed(self.upload, "beginning its parts"))?;
        self.notes.multipart = Some(id.clone());
        if let Err(error) = self.log.record(None, self.notes.save()).await {
            // Nobody else will know of it; where this fails too, reconciling finds it.
            if let Err(error) = self.store.abort_multipart(self.upload).await {
                tracing::warn!(upload = %self.upload, %error, "a multipart upload is left");
            }
            return Err(error);
        }
        Ok(id)
    }

    /// Brings the fragments' bytes to where the spool has its hole.
    async fn fill(&mut self) -> Result<()> {
        let mut at = 0;
        for (number, size) in self.notes.fragments().collect::<Vec<_>>() {
            let name = uploads::fragment(self.upload, number);
            let mut bytes = read::open(&self.store, &name, 0..size)
                .await?
                .ready_chunks(FILL_BYTES / 4096);
            while let Some(pieces) = bytes.next().await {
                let pieces: Vec<Bytes> = pieces.into_iter().collect::<Result<_>>()?;
                let length: usize = pieces.iter().map(Bytes::len).sum();
                let filled = self.spool.fill(at, pieces).await;
                filled.map_err(failed(self.upload, "writing its spool"))?;
                at += length as u64;
            }
        }
        Ok(())
    }

    /// Stores the spool's bytes as a fragment; too many fragments become one with them.
    async fn send_fragment(&mut self) -> Result<()> {
        let merge = self.notes.fragments.len() >= FRAGMENTS_MAX;
        if merge {
            self.fill().await?;
        }
        let name = uploads::fragment(self.upload, self.notes.next_fragment());
        let length = if merge {
            self.spool.total()
        } else {
            self.spool.bytes()
        };
        let crc32 = self.spool.crc32(merge).await;
        let crc32 = crc32.map_err(failed(self.upload, "reading its spool"))?;
        let body = self.spool.body(&name, merge);
        let stored = self.store.put_object(&name, length, crc32, body).await;
        stored.map_err(self.store.object_failed(&name, "storing it"))?;
        if merge {
            self.notes.drop_fragments();
        }
        self.notes.fragments.push(length);
        let spool = Spool::create(&self.store.spool, self.notes.fragment_bytes()).await;
        self.spool = spool.map_err(failed(self.upload, "opening its spool"))?;
        Ok(())
    }

    async fn bring(&mut self, when: Settle) -> Result<Settled> {
        if when == Settle::IfCheap && self.spool.bytes() > 0 {
            return Ok(Settled::NotYet);
        }
        self.land().await?;
        if self.spool.bytes() > 0 {
            if self.spool.total() >= PART_BYTES_MIN && !self.store.uniform_parts {
                self.send_part().await?;
                self.land().await?;
            } else {
                self.send_fragment().await?;
            }
            self.noted = true;
        }
        Ok(Settled::Done(self.noted.then(|| self.notes.save())))
    }

    async fn complete(&mut self, key: &ObjectName) -> Result<ObjectName> {
        self.land().await?;
        if self.notes.multipart.is_none() {
            // A name under which nothing is noted was recorded when the session was claimed.
            if self.noted {
                self.log.record(Some(key), self.notes.save()).await?;
            }
            self.fill().await?;
            let crc32 = self.spool.crc32(true).await;
            let crc32 = crc32.map_err(failed(self.upload, "reading its spool"))?;
            let body = self.spool.body(key, true);
            let stored = self.store.put_object(key, self.spool.total(), crc32, body).await;
            stored.map_err(self.store.object_failed(key, "storing it"))?;
            return Ok(key.clone());
        }
        if self.spool.total() > 0 || self.notes.parts.is_empty() {
            self.send_part().await?;
            self.land().await?;
        }
        let multipart = self.multipart().await?;
        let completed = self
            .store
            .complete_multipart(self.upload, &multipart, &self.notes)
            .await;
        completed.map_err(failed(self.upload, "completing its parts"))?;
        Ok(uploads::object(self.upload))
    }

    /// The object is there: fragments are needed no more. Where this fails, the next sweep finds them.
    async fn drop_fragments(&self) {
        for number in self.notes.swept..self.notes.next_fragment() {
            let name = uploads::fragment(self.upload, number);
            if let Err(error) = self.store.delete_object(name.as_str()).await {
                tracing::warn!(%name, %error, "a fragment is left");
            }
        }
    }

    /// Runs a step unless an earlier one failed; its failure is the writer's.
    fn usable(&mut self) -> Result<()> {
        if self.failed {
            let lost = io::Error::other("an earlier write failed");
            return Err(failed(self.upload, "writing it")(lost));
        }
        // Taken back when the step has succeeded: one that is dropped half-way counts as failed.
        self.failed = true;
        Ok(())
    }
}

#[async_trait]
impl UploadWriter for Writer {
    async fn append(&mut self, data: Vec<Bytes>) -> Result<()> {
        self.usable()?;
        self.take_in(data).await?;
        self.failed = false;
        Ok(())
    }

    async fn settle(&mut self, when: Settle) -> Result<Settled> {
        self.usable()?;
        let settled = self.bring(when).await?;
        self.failed = false;
        Ok(settled)
    }

    async fn finish(mut self: Box<Self>, key: &ObjectName) -> Result<ObjectName> {
        self.usable()?;
        let stored = self.complete(key).await?;
        self.drop_fragments().await;
        Ok(stored)
    }
}

/// Leaves the first `length` bytes and returns the rest.
fn split(pieces: &mut Vec<Bytes>, length: u64) -> Vec<Bytes> {
    let mut room = usize::try_from(length).unwrap_or(usize::MAX);
    let Some(index) = pieces.iter().position(|piece| {
        let fits = piece.len() <= room;
        if fits {
            room -= piece.len();
        }
        !fits
    }) else {
        return Vec::new();
    };
    let mut after = pieces.split_off(index);
    let head = after[0].split_to(room);
    pieces.push(head);
    after
}

fn failed(upload: UploadId, operation: &'static str) -> impl Fn(io::Error) -> StorageError {
    move |source| StorageError::Upload {
        upload,
        operation,
        source,
    }
}
