//! Sending the context while it is read.

use std::io::{self, Write};

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use client::api_client::Api;
use client::{ByteStream, Error, Place};
use futures::StreamExt as _;
use tokio::sync::mpsc;

use super::context::{Context, ContextError};
use crate::args::ProgressMode;
use crate::progress::Transfer;

/// Pieces of the tar stream: large enough that their number costs nothing.
const PIECE_BYTES: usize = 256 * 1024;

/// Pieces that are read ahead of the network.
const PIECES_AHEAD: usize = 4;

/// Sends the context and returns its id.
pub(crate) async fn send(api: &Api, context: Context, mode: ProgressMode) -> anyhow::Result<String> {
    let bar = Transfer::start(
        "sending the context",
        Some(context.size_bytes),
        mode == ProgressMode::Auto,
    );
    let (sender, mut receiver) = mpsc::channel(PIECES_AHEAD);
    let reader = tokio::task::spawn_blocking(move || read(&context, sender));
    let progress = bar.clone();
    let host = api.host().to_owned();
    let pieces = futures::stream::poll_fn(move |cx| receiver.poll_recv(cx)).map(move |piece| {
        if let Ok(piece) = &piece {
            progress.add(piece.len() as u64);
        }
        piece.map_err(|error: ContextError| Error::Source {
            place: Place::new(host.clone(), "the build context"),
            source: io::Error::other(error),
        })
    });
    let body: ByteStream = Box::pin(pieces);
    let created = api.create_context(body).await;
    bar.finish();
    reader
        .await
        .context("the reader of the build context ended badly")?;
    Ok(created?.id)
}

/// Blocking: packs the context into the channel, with an error at its end if it could not be read.
fn read(context: &Context, sender: mpsc::Sender<Result<Bytes, ContextError>>) {
    let mut pieces = Pieces {
        sender: sender.clone(),
        buffer: BytesMut::with_capacity(PIECE_BYTES),
    };
    match context.write_to(&mut pieces) {
        // Nobody listens any more: the request has failed and says why.
        Ok(()) | Err(ContextError::Send(_)) => {}
        Err(error) => drop(sender.blocking_send(Err(error))),
    }
}

struct Pieces {
    sender: mpsc::Sender<Result<Bytes, ContextError>>,
    buffer: BytesMut,
}

impl Write for Pieces {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = data.len().min(PIECE_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&data[..taken]);
        if self.buffer.len() == PIECE_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(PIECE_BYTES)).freeze();
        self.sender
            .blocking_send(Ok(piece))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
