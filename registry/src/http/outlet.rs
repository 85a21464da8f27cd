//! A file's bytes from the page cache to a socket, past the HTTP library.
//!
//! hyper sends what a body yields and knows nothing of files. So a [`FileBody`](super::file_body::FileBody) yields slices of [`PLACEHOLDER`] and notes
//! in its connection's [`Outbox`] which bytes of which file they stand for. hyper hands the slices over unread and in
//! order; [`Outlet`], the connection as hyper sees it, knows them by their address and sends the file's bytes instead.
//! A placeholder that nothing is noted for cuts the connection.
//!
//! They are read into a buffer that stays in the CPU's cache, and sent from there: two copies, which on the kernels of
//! today (6.18) take less than what sendfile(2) does for every page. bench/README.md has what it is worth.
//!
//! For HTTP/1 over plain TCP alone: HTTP/2 interleaves its frames, and TLS has to see the bytes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::io::ReadWriteFlags;
use rustix::net::SendFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// What is noted at once.
pub(super) const PIECE_BYTES: usize = 1 << 20;

/// What a thread reads and sends at once, while the socket takes that much …
const CHUNK_BYTES_MAX: usize = 512 << 10;
/// … and at least: what a slow client's socket doesn't take is read again.
const CHUNK_BYTES_MIN: usize = 64 << 10;

/// Never read or written: only its addresses count.
static PLACEHOLDER: [u8; PIECE_BYTES] = [0; PIECE_BYTES];

thread_local! {
    static CHUNK: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK_BYTES_MAX].into_boxed_slice());
}

/// What the placeholders stand for that a connection has not sent yet, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    segments: Arc<Mutex<VecDeque<Segment>>>,
}

impl Outbox {
    /// Notes a range of a file, at most [`PIECE_BYTES`]; returns what stands for it.
    pub(super) fn note(&self, file: Arc<File>, piece: Range<u64>) -> Bytes {
        let length = length_of(&piece).min(PIECE_BYTES);
        let rest = piece.start..piece.start + length as u64;
        self.segments.lock().push_back(Segment { file, rest });
        Bytes::from_static(&PLACEHOLDER[..length])
    }
}

#[derive(Debug)]
struct Segment {
    file: Arc<File>,
    rest: Range<u64>,
}

/// A TCP connection that sends what the outbox says in place of placeholders.
#[derive(Debug)]
pub(crate) struct Outlet {
    stream: TcpStream,
    outbox: Outbox,
    /// How much the socket may take at once, after what it took before.
    appetite: usize,
}

impl Outlet {
    pub(crate) fn new(stream: TcpStream, outbox: Outbox) -> Self {
        Self {
            stream,
            outbox,
            appetite: CHUNK_BYTES_MAX,
        }
    }

    fn send_file(&mut self, context: &mut Context<'_>, length: usize) -> Poll<io::Result<usize>> {
        let segments = Arc::clone(&self.outbox.segments);
        let mut segments = segments.lock();
        let Some(segment) = segments.front_mut() else {
            return Poll::Ready(Err(io::Error::other("a placeholder stands for nothing")));
        };
        let wanted = length.min(length_of(&segment.rest)).min(self.appetite);
        let send = || send_some(&self.stream, &segment.file, segment.rest.start, wanted);
        let sent = ready!(self.when_writable(context, send))?;
        self.appetite = if sent < wanted {
            sent.max(CHUNK_BYTES_MIN)
        } else {
            (2 * self.appetite).min(CHUNK_BYTES_MAX)
        };
        if sent == 0 {
            let missing = segment.rest.end - segment.rest.start;
            tracing::error!(missing, "blob transfer cut: the file is shorter than it was");
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        segment.rest.start += sent as u64;
        if segment.rest.is_empty() {
            segments.pop_front();
        }
        Poll::Ready(Ok(sent))
    }

    /// Does one write that may find the socket's buffer full.
    fn when_writable(
        &self,
        context: &mut Context<'_>,
        mut write: impl FnMut() -> rustix::io::Result<Sent>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            let mut last = None;
            let written = self.stream.try_io(Interest::WRITABLE, || {
                let sent = write()?;
                if sent.full {
                    // As if it had been tried once more: the next time is when the kernel says so.
                    last = Some(sent.bytes);
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(sent.bytes)
            });
            match (last, written) {
                (Some(bytes), _) => return Poll::Ready(Ok(bytes)),
                (None, Err(error))
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                (None, written) => return Poll::Ready(written),
            }
        }
    }
}

struct Sent {
    bytes: usize,
    /// The socket took less than it was given: it has no room.
    full: bool,
}

impl Sent {
    fn some(bytes: usize) -> Self {
        Self { bytes, full: false }
    }
}

/// Sends up to `wanted` bytes of a file; none: it has ended.
fn send_some(stream: &TcpStream, file: &File, offset: u64, wanted: usize) -> rustix::io::Result<Sent> {
    CHUNK.with_borrow_mut(|chunk| {
        let chunk = &mut chunk[..wanted];
        let slices = &mut [IoSliceMut::new(chunk)];
        match rustix::io::preadv2(file, slices, offset, ReadWriteFlags::NOWAIT) {
            Ok(0) => Ok(Sent::some(0)),
            Ok(read) => {
                let bytes = rustix::net::send(stream, &chunk[..read], SendFlags::NOSIGNAL)?;
                Ok(Sent {
                    bytes,
                    full: bytes < read,
                })
            }
            // The page cache has lost it since it was looked at, or the file system doesn't know NOWAIT.
            Err(_) => {
                let mut offset = offset;
                rustix::fs::sendfile(stream, file, Some(&mut offset), wanted).map(Sent::some)
            }
        }
    })
}

fn is_placeholder(slice: &[u8]) -> bool {
    !slice.is_empty() && PLACEHOLDER.as_ptr_range().contains(&slice.as_ptr())
}

pub(super) fn length_of(range: &Range<u64>) -> usize {
    usize::try_from(range.end - range.start).unwrap_or(usize::MAX)
}

impl AsyncRead for Outlet {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Outlet {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = slices.iter().filter(|slice| !slice.is_empty());
        match (filled.next(), filled.next()) {
            (Some(first), _) if is_placeholder(first) => self.send_file(context, first.len()),
            // An answer's head: MORE keeps it for the packet in which the file begins.
            (Some(head), Some(next)) if is_placeholder(next) => self.when_writable(context, || {
                rustix::net::send(&self.stream, head, SendFlags::MORE).map(Sent::some)
            }),
            _ => {
                let plain = slices.iter().position(|slice| is_placeholder(slice));
                let plain = &slices[..plain.unwrap_or(slices.len())];
                Pin::new(&mut self.stream).poll_write_vectored(context, plain)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io::Write as _;

    use http::Response;
    use http_body::Body as _;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpSocket;
    use tokio::time::Duration;

    use super::*;
    use crate::http::file_body::FileBody;

    /// Serves a range of a file to one connection; returns all that the client got for `requests` requests.
    async fn exchange(file: File, range: Range<u64>, requests: usize) -> Vec<u8> {
        exchange_with(
            TcpSocket::new_v4().unwrap(),
            Duration::ZERO,
            file,
            range,
            requests,
        )
        .await
    }

    /// … by a socket that is read after a pause again and again.
    async fn exchange_with(
        socket: TcpSocket,
        pause: Duration,
        file: File,
        range: Range<u64>,
        requests: usize,
    ) -> Vec<u8> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = socket.connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let (file, outbox) = (Arc::new(file), Outbox::default());
        let outlet = Outlet::new(stream, outbox.clone());
        let service = service_fn(move |_| {
            let body = FileBody::new(Arc::clone(&file), outbox.clone(), range.clone());
            let length = body.size_hint().exact().unwrap();
            let response = Response::builder().header("content-length", length).body(body);
            async move { Ok::<_, Infallible>(response.unwrap()) }
        });
        let serving = tokio::spawn(async move {
            let mut http = hyper::server::conn::http1::Builder::new();
            http.max_buf_size(128 << 10)
                .serve_connection(TokioIo::new(outlet), service)
                .await
        });
        for request in 0..requests {
            let close = if request + 1 == requests {
                "Connection: close\r\n"
            } else {
                ""
            };
            let request = format!("GET / HTTP/1.1\r\nHost: h\r\n{close}\r\n");
            client.write_all(request.as_bytes()).await.unwrap();
        }
        let mut got = Vec::new();
        while client.read_buf(&mut got).await.is_ok_and(|read| read > 0) {
            tokio::time::sleep(pause).await;
        }
        drop(serving.await.unwrap());
        got
    }

    /// Bytes none of which could be a placeholder's zero.
    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|index| (index % 255) as u8 + 1).collect()
    }

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[tokio::test]
    async fn pipelined_answers_carry_the_files_bytes() {
        let bytes = content(3 * PIECE_BYTES + 1234);
        let (from, to) = (777, bytes.len() - 5);
        let got = exchange(file_of(&bytes), from as u64..to as u64, 3).await;
        let mut rest = got.as_slice();
        for _ in 0..3 {
            let head = rest.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
            assert!(rest.starts_with(b"HTTP/1.1 200 OK\r\n"));
            let body = &rest[head..head + to - from];
            assert!(body == &bytes[from..to], "other bytes");
            rest = &rest[head + to - from..];
        }
        assert!(rest.is_empty());
    }

    /// Its socket is full again and again.
    #[tokio::test]
    async fn a_slow_reader_gets_the_files_bytes() {
        let bytes = content(5 * PIECE_BYTES + 77);
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 << 10).unwrap();
        let length = bytes.len() as u64;
        let pause = Duration::from_millis(1);
        let got = exchange_with(socket, pause, file_of(&bytes), 0..length, 1).await;
        assert!(got.ends_with(&bytes), "{} bytes", got.len());
    }

    #[tokio::test]
    async fn a_file_that_has_shrunk_cuts_the_connection() {
        let bytes = content(5000);
        let got = exchange(file_of(&bytes), 0..9000, 1).await;
        let sent = got.len();
        assert!(sent < 9000, "{sent} bytes arrived of a file of 5000");
        assert!(!got.contains(&0), "a placeholder was sent");
    }
}
