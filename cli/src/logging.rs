//! Logs on standard error, written by a thread of their own: a request never waits for a terminal or a full pipe.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use registry::{LogConfig, LogFormat, TRACES_TARGET};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::failure::Usage;
use crate::traces::Traces;

/// Lines that wait for a stuck reader; what comes when they are full is counted and dropped.
const BUFFER_BYTES_MAX: usize = 8 << 20;

/// How long the writer gathers lines before it writes them together.
const GATHER: Duration = Duration::from_millis(10);

/// Starts logging, and tracing with it where somebody wants traces. Lines still in memory are written when the guard is
/// dropped.
pub(crate) fn start(settings: &LogConfig, traces: Option<&Traces>) -> anyhow::Result<LogGuard> {
    // Spans are for traces: a line has all that it says of its own.
    let filter = EnvFilter::try_new(&settings.level)
        .map_err(|error| Usage(format!("log level {:?}: {error}", settings.level)))?
        .add_directive(format!("{TRACES_TARGET}=off").parse()?);
    let shared = Arc::new(Shared::default());
    let guard = LogGuard::start(shared.clone()).context("cannot start the log writer")?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(Writer(shared))
        .with_ansi(false);
    let lines = match settings.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let installed = match traces {
        None => tracing_subscriber::registry().with(lines).with(filter).try_init(),
        Some(traces) => tracing_subscriber::registry()
            .with(lines.with_filter(filter))
            .with(traces.layer())
            .try_init(),
    };
    installed.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))?;
    Ok(guard)
}

pub(crate) struct LogGuard {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    dropped: u64,
    closed: bool,
}

impl LogGuard {
    fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let theirs = shared.clone();
        let thread = std::thread::Builder::new()
            .name("log".into())
            .spawn(move || theirs.write_until_closed())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.lines.len() + line.len() > BUFFER_BYTES_MAX {
            state.dropped += 1;
            return;
        }
        // The writer sleeps only on an empty buffer: one wake-up for all lines of a moment.
        let was_empty = state.lines.is_empty();
        state.lines.extend_from_slice(line);
        drop(state);
        if was_empty {
            self.wake.notify_one();
        }
    }

    fn write_until_closed(&self) {
        let mut lines = Vec::new();
        loop {
            let mut state = self.lock();
            while state.lines.is_empty() && !state.closed {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let closed = state.closed;
            drop(state);
            if !closed {
                std::thread::sleep(GATHER);
            }
            let mut state = self.lock();
            std::mem::swap(&mut lines, &mut state.lines);
            let dropped = std::mem::take(&mut state.dropped);
            drop(state);
            let mut stderr = io::stderr().lock();
            drop(stderr.write_all(&lines));
            if dropped > 0 {
                drop(writeln!(
                    stderr,
                    "{dropped} log lines were dropped: standard error is too slow"
                ));
            }
            lines.clear();
            if closed {
                return;
            }
        }
    }
}

/// Gives each event the same buffer; an event is one write.
struct Writer(Arc<Shared>);

struct LineWriter<'a>(&'a Shared);

impl<'a> MakeWriter<'a> for Writer {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter(&self.0)
    }
}

impl Write for LineWriter<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.push(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_buffer_drops_and_counts_lines_instead_of_blocking() {
        let shared = Shared::default();
        shared.push(&vec![b'x'; BUFFER_BYTES_MAX]);
        shared.push(b"too much\n");
        assert_eq!(shared.lock().dropped, 1);
        assert_eq!(shared.lock().lines.len(), BUFFER_BYTES_MAX);
    }
}
