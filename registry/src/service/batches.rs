//! A request's body in batches: what is hashed and written at once. The more bodies come in, the smaller theirs are, so that
//! all together take bounded memory.

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};

use super::error::BodyError;

/// A request's body.
pub(crate) type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>;

/// What is hashed and written at once of one body …
const BATCH_BYTES_MAX: usize = 256 * 1024;
/// … though not less than this, which is worth a thread's waking …
const BATCH_BYTES_MIN: usize = 64 * 1024;
/// … and of all bodies together.
const BATCHES_BYTES: usize = 4 * 1024 * 1024;

/// A body up to this is hashed where it is and stored in one go: waking a thread would cost more.
pub(super) const SMALL_BYTES: usize = 64 * 1024;

/// What is taken of one body while the database is asked whether it may come …
const EARLY_BYTES_MAX: usize = 1024 * 1024;
/// … and of all bodies together.
const EARLIES_BYTES: usize = 8 * 1024 * 1024;

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
        self.share_of(BATCHES_BYTES)
            .clamp(BATCH_BYTES_MIN, BATCH_BYTES_MAX)
    }

    pub(super) fn early_bytes(&self) -> usize {
        self.share_of(EARLIES_BYTES).clamp(SMALL_BYTES, EARLY_BYTES_MAX)
    }

    fn share_of(&self, bytes: usize) -> usize {
        bytes / self.0.load(Ordering::Relaxed).max(1)
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

/// Does something before a body is read, and takes meanwhile what comes of it, up to `limit` bytes or a little more.
pub(super) async fn meanwhile<T>(
    body: BodyStream,
    limit: usize,
    work: impl Future<Output = T>,
) -> (T, BodyStream) {
    let (mut body, mut work) = (body.fuse(), pin!(work));
    let (mut early, mut bytes) = (Vec::new(), 0);
    let done = loop {
        tokio::select! {
            biased;
            done = &mut work => break done,
            Some(piece) = body.next(), if bytes <= limit => {
                // Nothing comes after an error.
                bytes = piece.as_ref().map_or(usize::MAX, |piece| bytes + piece.len());
                early.push(piece);
            }
        }
    };
    (done, Box::pin(stream::iter(early).chain(body)))
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
    use tokio::time::{Duration, sleep};

    use super::*;

    fn body(pieces: Vec<Result<Bytes, BodyError>>) -> BodyStream {
        Box::pin(stream::iter(pieces))
    }

    #[tokio::test]
    async fn what_comes_early_is_neither_lost_nor_more_than_the_limit() {
        let piece = |byte| Ok(Bytes::from(vec![byte; 40_000]));
        for count in [0, 1, 2, 3, 100] {
            let taken = std::sync::Arc::new(AtomicUsize::new(0));
            let counter = std::sync::Arc::clone(&taken);
            let pieces = stream::iter((0..count).map(piece)).inspect(move |_| {
                counter.fetch_add(1, Ordering::Relaxed);
            });
            let work = async {
                sleep(Duration::from_millis(2)).await;
                7
            };
            let (done, rest) = meanwhile(Box::pin(pieces), 70_000, work).await;
            assert_eq!(done, 7);
            assert_eq!(taken.load(Ordering::Relaxed), usize::from(count).min(2));
            let rest: Vec<_> = rest.map(|piece| piece.unwrap()[0]).collect().await;
            assert_eq!(rest, (0..count).collect::<Vec<u8>>());
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_early_is_still_broken() {
        let broken = BodyError::from(std::io::Error::other("gone"));
        let body = body(vec![Ok(Bytes::from_static(b"a")), Err(broken)]);
        let (_, mut rest) = meanwhile(body, 1000, sleep(Duration::from_millis(2))).await;
        assert_eq!(rest.next().await.unwrap().unwrap(), "a");
        assert!(rest.next().await.unwrap().is_err());
        assert!(rest.next().await.is_none());
    }

    #[test]
    fn batches_shrink_while_many_bodies_come_in() {
        let receiving = Receiving::default();
        let turns: Vec<_> = (0..32).map(|_| receiving.begin()).collect();
        assert_eq!(receiving.batch_bytes(), BATCHES_BYTES / 32);
        let more: Vec<_> = (0..1000).map(|_| receiving.begin()).collect();
        assert_eq!(receiving.batch_bytes(), BATCH_BYTES_MIN);
        assert_eq!(receiving.early_bytes(), SMALL_BYTES);
        drop((turns, more));
        assert_eq!(receiving.batch_bytes(), BATCH_BYTES_MAX);
    }
}
