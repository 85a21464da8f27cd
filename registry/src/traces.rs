//! Spans for OpenTelemetry: one a request (`http/spans.rs`), below it one for each call of the database and of the blob
//! store. Who starts the server decides where they go. Where nobody wants them, a span costs one comparison.

use std::error::Error;
use std::future::Future;

use tokio::task::JoinHandle;
use tracing::field::Empty;
use tracing::{Instrument as _, Span, trace_span};

/// What all spans are filed under, for the subscriber's filter. Nothing else is.
pub const TARGET: &str = "layeryard::spans";

/// A call of the database.
pub(crate) fn query(system: &'static str, operation: &'static str) -> Span {
    trace_span!(
        target: TARGET,
        "database",
        "otel.name" = operation,
        "otel.kind" = "client",
        "otel.status_description" = Empty,
        "db.system.name" = system,
        "db.operation.name" = operation,
    )
}

/// A call of the blob store.
pub(crate) fn store(system: &'static str, operation: &'static str) -> Span {
    trace_span!(
        target: TARGET,
        "store",
        "otel.name" = operation,
        "otel.kind" = "client",
        "otel.status_description" = Empty,
        "layeryard.store" = system,
        "layeryard.store.operation" = operation,
    )
}

/// Calls that are shown in traces.
pub(crate) trait Traced<T, E: Error>: Future<Output = Result<T, E>> + Sized {
    /// Runs in `span`, which ends with it and tells whether it failed.
    fn within(self, span: Span) -> impl Future<Output = Result<T, E>> {
        async move {
            let outcome = self.instrument(span.clone()).await;
            if let Err(error) = &outcome
                && !span.is_disabled()
            {
                span.record("otel.status_description", error.to_string());
            }
            outcome
        }
    }
}

impl<F: Future<Output = Result<T, E>>, T, E: Error> Traced<T, E> for F {}

/// A task that goes on where its request began it, also in the traces.
pub(crate) fn spawn<F>(work: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    tokio::spawn(work.in_current_span())
}
