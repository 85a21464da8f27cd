//! Bodies of requests: as they come, and as JSON.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use prometheus_client::metrics::counter::Counter;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{ApiError, Code};

/// A body whose bytes are counted as they come, and that ends when they stop coming.
pub(super) struct Watched<B> {
    body: B,
    received: Counter,
    stalled_max: Duration,
    /// Since when nothing has come, though it was wanted.
    waiting_since: Option<Instant>,
    /// Made when the first byte keeps us waiting: most bodies are there.
    timer: Option<Pin<Box<Sleep>>>,
}

/// A client that goes on sending, but sends nothing.
#[derive(Debug, thiserror::Error)]
#[error("nothing came for {} s", .0.as_secs_f32())]
struct Stalled(Duration);

impl<B> Watched<B> {
    pub(super) fn new(body: B, received: Counter, stalled_max: Duration) -> Self {
        Self {
            body,
            received,
            stalled_max,
            waiting_since: None,
            timer: None,
        }
    }

    fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<Stalled> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let end = since + self.stalled_max;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        loop {
            ready!(timer.as_mut().poll(context));
            if Instant::now() >= end {
                return Poll::Ready(Stalled(self.stalled_max));
            }
            // It was set for an earlier wait.
            timer.as_mut().reset(end);
        }
    }
}

impl<B> http_body::Body for Watched<B>
where
    B: http_body::Body<Data = Bytes, Error: Into<axum::BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(frame) => {
                this.waiting_since = None;
                if let Some(Ok(frame)) = &frame
                    && let Some(data) = frame.data_ref()
                {
                    this.received.inc_by(data.len() as u64);
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                let stalled = ready!(this.poll_stalled(context));
                Poll::Ready(Some(Err(stalled.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whether a body ended because nothing came any more.
pub(super) fn is_stalled(error: &(dyn Error + 'static)) -> bool {
    error.is::<Stalled>() || error.source().is_some_and(is_stalled)
}

/// Reads a body of at most `limit_bytes` as JSON, whatever its content type says.
pub(super) async fn json<T: DeserializeOwned>(body: Body, limit_bytes: usize) -> Result<T, ApiError> {
    let collected = Limited::new(body, limit_bytes).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            return ApiError::new(
                Code::TooLarge,
                format!("the request has more than {limit_bytes} bytes"),
            );
        }
        ApiError::new(Code::RequestInvalid, format!("the request broke off: {error}"))
    })?;
    serde_json::from_slice(&collected.to_bytes())
        .map_err(|error| ApiError::new(Code::RequestInvalid, format!("the request is not valid: {error}")))
}
