//! Things that last until an answer's last byte.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};

struct Held<T> {
    body: Body,
    _until_the_end: T,
}

/// Drops `thing` when the answer has been sent, or given up.
pub(super) fn hold<T: Unpin + Send + 'static>(response: &mut Response<Body>, thing: T) {
    let body = std::mem::take(response.body_mut());
    *response.body_mut() = Body::new(Held {
        body,
        _until_the_end: thing,
    });
}

impl<T: Unpin> http_body::Body for Held<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
