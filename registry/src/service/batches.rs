//! A request's body in batches: what is hashed and written at once. The more bodies come in, the smaller theirs are, so that
//! all together take bounded memory.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};

use super::error::BodyError;

/// A request's body.
pub(crate) type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>;

/// What is hashed and written at once of one body …
const BATCH_BYTES_MAX: usize = 256 * 1024;
/// … though not less than this, which is worth a thread's waking …
const BATCH_BYTES_MIN: usize = 64 * 1024;
/// … and of all bodies together.
const BATCHES_BYTES: usize = 4 * 1024 * 1024;

/// How much of a refused body is read …
const DRAINED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// … and for how long.
const DRAINED_FOR_MAX: Duration = Duration::from_secs(5);

pub(super) struct Batch {
    pub(super) pieces: Vec<Bytes>,
    pub(super) bytes: usize,
    pub(super) end: End,
}

pub(super) enum End {
    NotYet,
    Whole,
    Broken(BodyError),
}

/// How many large bodies are coming in.
#[derive(Default)]
pub(super) struct Receiving(AtomicUsize);

pub(super) struct Turn<'a>(&'a Receiving);

impl Receiving {
    pub(super) fn begin(&self) -> Turn<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Turn(self)
    }

    pub(super) fn batch_bytes(&self) -> usize {
        let running = self.0.load(Ordering::Relaxed).max(1);
        (BATCHES_BYTES / running).clamp(BATCH_BYTES_MIN, BATCH_BYTES_MAX)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reads what is left of a refused request's body, within bounds: a connection that is closed over unread bytes is reset,
/// and the client may never see the answer.
pub(crate) async fn drain(mut body: BodyStream) {
    let reading = async {
        let mut read = 0;
        while let Some(Ok(piece)) = body.next().await
            && read <= DRAINED_BYTES_MAX
        {
            read += piece.len();
        }
    };
    // A client that takes longer has to live with it.
    let _ = tokio::time::timeout(DRAINED_FOR_MAX, reading).await;
}

/// Takes what comes until it is `limit` bytes or more.
pub(super) async fn next_batch(body: &mut BodyStream, limit: usize) -> Batch {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_shrink_while_many_bodies_come_in() {
        let receiving = Receiving::default();
        let turns: Vec<_> = (0..32).map(|_| receiving.begin()).collect();
        assert_eq!(receiving.batch_bytes(), BATCHES_BYTES / 32);
        let more: Vec<_> = (0..1000).map(|_| receiving.begin()).collect();
        assert_eq!(receiving.batch_bytes(), BATCH_BYTES_MIN);
        drop((turns, more));
        assert_eq!(receiving.batch_bytes(), BATCH_BYTES_MAX);
    }
}
