//! Threads for work that walks trees: recursion needs more stack than the runtime's threads have, and a walk may take
//! as long as a file system is large.

use tokio::sync::oneshot;

/// Room for the deepest tree that is walked (`snapshot::check_depth`), with frames of a debug build.
pub(crate) const STACK_BYTES: usize = 16 << 20;

/// Starts the work at once. The receiver fails if the thread can't be started or panics.
pub(crate) fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> oneshot::Receiver<T> {
    let (sender, receiver) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES);
    let started = thread.spawn(move || {
        // Nobody may be waiting any more.
        let _ = sender.send(work());
    });
    if let Err(error) = started {
        tracing::error!(%error, name, "could not start a thread");
    }
    receiver
}
