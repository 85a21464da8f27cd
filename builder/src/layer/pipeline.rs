//! One pass from a tar stream to a blob in the registry.
//!
//! ```text
//! producer thread: walk, read, tar → sha256 (diff id) → 1 MiB chunks ─┬→ compressors (shared by the node) ─┐
//!                                                                     └→ queue of results, in order ←──────┘
//! collector thread: next result → sha256 (digest) → upload (async)
//! ```
//!
//! The queue's length bounds memory; the order of chunks, not of threads, makes the bytes.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use oci::media_type::OCI_LAYER_GZIP;
use oci::{Algorithm, Descriptor, Digest, Hasher};
use tokio::sync::mpsc;

use super::compress::{Compressors, MEMBER_BYTES};
use super::error::LayerError;
use crate::blocking;
use crate::services::ImageSink;

/// A layer in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    pub descriptor: Descriptor,
    pub diff_id: Digest,
}

type ChunkResult = Receiver<io::Result<Vec<u8>>>;

/// Takes uncompressed bytes; part of the pipeline that [`upload`] sets up.
pub struct ChunkWriter {
    buffer: Vec<u8>,
    hasher: Hasher,
    compressors: Arc<Compressors>,
    queue: SyncSender<ChunkResult>,
}

/// Runs `produce` on a thread of its own, compresses what it writes and uploads it meanwhile. What `produce` returns
/// comes back beside the layer. Nothing is left in the registry if anything fails.
pub async fn upload<T, F>(
    sink: &dyn ImageSink,
    compressors: &Arc<Compressors>,
    produce: F,
) -> Result<(Layer, T), LayerError>
where
    T: Send + 'static,
    F: FnOnce(&mut ChunkWriter) -> Result<T, LayerError> + Send + 'static,
{
    let mut blob = sink
        .start_upload()
        .await
        .map_err(|source| LayerError::Upload { source })?;
    let depth = 2 * compressors.threads() + 4;
    let (queue, results) = sync_channel(depth);
    let mut writer = ChunkWriter {
        buffer: Vec::with_capacity(MEMBER_BYTES),
        hasher: Hasher::new(Algorithm::Sha256),
        compressors: Arc::clone(compressors),
        queue,
    };
    let producer = blocking::spawn("layer", move || {
        let value = produce(&mut writer)?;
        Ok::<_, LayerError>((writer.finish()?, value))
    });
    let (packed, mut to_send) = mpsc::channel::<Bytes>(2);
    let collector = tokio::task::spawn_blocking(move || collect(&results, &packed));
    let mut failed = None;
    while let Some(data) = to_send.recv().await {
        if let Err(source) = blob.write(data).await {
            failed = Some(LayerError::Upload { source });
            break;
        }
    }
    // Closing the channels ends the collector and then the producer, also after a failed write.
    drop(to_send);
    let collected = collector.await.map_err(|_| LayerError::ThreadDied)?;
    let produced = producer.await.map_err(|_| LayerError::ThreadDied)?;
    if let Some(error) = failed {
        return Err(error);
    }
    // The producer's error is the cause of the collector's, where both failed.
    let (diff_id, value) = produced?;
    let (digest, size) = collected?;
    blob.finish(&digest)
        .await
        .map_err(|source| LayerError::Upload { source })?;
    Ok((
        Layer {
            descriptor: Descriptor::new(OCI_LAYER_GZIP, digest, size),
            diff_id,
        },
        value,
    ))
}

fn collect(
    results: &Receiver<ChunkResult>,
    packed: &mpsc::Sender<Bytes>,
) -> Result<(Digest, u64), LayerError> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut size = 0;
    for result in results {
        let member = result
            .recv()
            .map_err(|_| LayerError::ThreadDied)?
            .map_err(|source| LayerError::Compress { source })?;
        hasher.update(&member);
        size += member.len() as u64;
        packed
            .blocking_send(member.into())
            .map_err(|_| LayerError::Abandoned)?;
    }
    Ok((hasher.finish(), size))
}

impl ChunkWriter {
    fn send(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(MEMBER_BYTES));
        self.hasher.update(&chunk);
        let result = self.compressors.submit(chunk);
        self.queue
            .send(result)
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }

    fn finish(mut self) -> Result<Digest, LayerError> {
        if !self.buffer.is_empty() {
            self.send().map_err(|_| LayerError::Abandoned)?;
        }
        Ok(self.hasher.finish())
    }
}

impl Write for ChunkWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = data.len().min(MEMBER_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&data[..taken]);
        if self.buffer.len() == MEMBER_BYTES {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
