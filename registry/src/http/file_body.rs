//! A range of a file as the body of an answer, whose bytes go [past the HTTP library](super::outlet).

use std::fs::File;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use rustix::io::ReadWriteFlags;
use tokio::task::JoinHandle;

use super::outlet::{Outbox, PIECE_BYTES, length_of};

/// One byte of so many, and the last one, is looked for in the page cache. Between two that are there the rest nearly
/// always is; where it isn't, sending waits for the disk. One of 128 KiB took a tenth of a large transfer's time.
const PROBE_BYTES: usize = 512 << 10;

/// What a thread reads at once to bring a piece into the page cache.
const WARM_BYTES: usize = 128 << 10;

/// A range of a file as the body of an answer on the connection that the outbox belongs to.
#[derive(Debug)]
pub(super) struct FileBody {
    file: Arc<File>,
    outbox: Outbox,
    rest: Range<u64>,
    /// A piece on its way from the disk, so that sending doesn't wait for it on an executor's thread.
    warming: Option<JoinHandle<io::Result<()>>>,
}

impl FileBody {
    pub(super) fn new(file: Arc<File>, outbox: Outbox, range: Range<u64>) -> Self {
        Self {
            file,
            outbox,
            rest: range,
            warming: None,
        }
    }

    fn poll_cached(&mut self, context: &mut Context<'_>, piece: &Range<u64>) -> Poll<io::Result<()>> {
        if self.warming.is_none() {
            if is_cached(&self.file, piece) {
                return Poll::Ready(Ok(()));
            }
            let (file, piece) = (Arc::clone(&self.file), piece.clone());
            self.warming = Some(tokio::task::spawn_blocking(move || warm(&file, piece)));
        }
        let Some(task) = self.warming.as_mut() else {
            return Poll::Pending;
        };
        let outcome =
            ready!(Pin::new(task).poll(context)).unwrap_or_else(|error| Err(io::Error::other(error)));
        self.warming = None;
        Poll::Ready(outcome)
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = length_of(&self.rest).min(PIECE_BYTES);
        let piece = self.rest.start..self.rest.start + length as u64;
        if let Err(error) = ready!(self.poll_cached(context, &piece)) {
            tracing::error!(%error, "blob transfer cut");
            return Poll::Ready(Some(Err(error)));
        }
        self.rest.start = piece.end;
        let placeholder = self.outbox.note(Arc::clone(&self.file), piece);
        Poll::Ready(Some(Ok(Frame::data(placeholder))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.end - self.rest.start)
    }
}

fn is_cached(file: &File, piece: &Range<u64>) -> bool {
    let probe = |offset| {
        let mut byte = [0];
        let read = rustix::io::preadv2(
            file,
            &mut [IoSliceMut::new(&mut byte)],
            offset,
            ReadWriteFlags::NOWAIT,
        );
        read == Ok(1)
    };
    piece.clone().step_by(PROBE_BYTES).all(probe) && probe(piece.end - 1)
}

fn warm(file: &File, mut piece: Range<u64>) -> io::Result<()> {
    let mut scratch = vec![0; WARM_BYTES];
    while !piece.is_empty() {
        let wanted = length_of(&piece).min(WARM_BYTES);
        match file.read_at(&mut scratch[..wanted], piece.start) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => piece.start += read as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn warming_reads_all_of_a_piece_and_notices_its_end() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 300_000]).unwrap();
        warm(&file, 10..300_000).unwrap();
        assert!(is_cached(&file, &(0..300_000)));
        let error = warm(&file, 0..300_001).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(!is_cached(&file, &(0..300_001)));
    }
}
