//! Bytes of an upload on their way to the bucket: a file without a name, so that memory stays small however many
//! uploads run, and a request can be sent again.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use futures::Stream;
use http_body::{Frame, SizeHint};

use crate::storage::filesystem::FileStream;
use crate::storage::{ObjectName, StorageError, blocking};

/// How much is read at once for a checksum.
const CHECKED_BYTES: usize = 64 * 1024;

pub(super) struct Spool {
    file: Arc<File>,
    /// Where the bytes of the fragments go when they are needed.
    hole: u64,
    /// Behind the hole.
    bytes: u64,
}

impl Spool {
    pub(super) async fn create(directory: &Path, hole: u64) -> io::Result<Self> {
        let directory = directory.to_owned();
        let file = blocking(move || tempfile::tempfile_in(directory)).await?;
        Ok(Self {
            file: Arc::new(file),
            hole,
            bytes: 0,
        })
    }

    /// Bytes without the hole's.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes with the hole's.
    pub(super) fn total(&self) -> u64 {
        self.hole + self.bytes
    }

    pub(super) async fn append(&mut self, data: Vec<Bytes>) -> io::Result<()> {
        let end = self.write(self.total(), data).await?;
        self.bytes = end - self.hole;
        Ok(())
    }

    /// Writes a part of the hole.
    pub(super) async fn fill(&mut self, at: u64, data: Vec<Bytes>) -> io::Result<()> {
        self.write(at, data).await.map(drop)
    }

    /// Returns where the data ends.
    async fn write(&self, mut at: u64, data: Vec<Bytes>) -> io::Result<u64> {
        let file = Arc::clone(&self.file);
        blocking(move || {
            for piece in data {
                file.write_all_at(&piece, at)?;
                at += piece.len() as u64;
            }
            Ok(at)
        })
        .await
    }

    /// The checksum of [`Spool::body`].
    pub(super) async fn crc32(&self, whole: bool) -> io::Result<u32> {
        let (file, range) = (Arc::clone(&self.file), self.range(whole));
        blocking(move || {
            let mut hasher = crc32fast::Hasher::new();
            let mut buffer = vec![0; CHECKED_BYTES];
            let mut at = range.start;
            while at < range.end {
                let length = CHECKED_BYTES.min(usize::try_from(range.end - at).unwrap_or(CHECKED_BYTES));
                file.read_exact_at(&mut buffer[..length], at)?;
                hasher.update(&buffer[..length]);
                at += length as u64;
            }
            Ok(hasher.finalize())
        })
        .await
    }

    fn range(&self, whole: bool) -> Range<u64> {
        let start = if whole { 0 } else { self.hole };
        start..self.total()
    }

    /// All bytes, without the hole's unless `whole`, as a request's body.
    pub(super) fn body(&self, key: &ObjectName, whole: bool) -> ByteStream {
        let (file, key, range) = (Arc::clone(&self.file), key.clone(), self.range(whole));
        ByteStream::new(SdkBody::retryable(move || {
            SdkBody::from_body_1_x(Body {
                rest: range.end - range.start,
                bytes: FileStream::new(Arc::clone(&file), key.clone(), range.clone()),
            })
        }))
    }
}

struct Body {
    bytes: FileStream,
    rest: u64,
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = StorageError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StorageError>>> {
        Pin::new(&mut self.bytes).poll_next(context).map(|next| {
            next.map(|piece| {
                let piece = piece?;
                self.rest -= piece.len() as u64;
                Ok(Frame::data(piece))
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.rest == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest)
    }
}
