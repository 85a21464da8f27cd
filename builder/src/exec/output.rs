//! A step's output: lines as they come, the last ones kept for the error message.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

use crate::event::{Event, EventSink, Stream};

/// Longer lines come in pieces.
const LINE_BYTES_MAX: usize = 64 << 10;
/// What a step may write into the event stream; the rest is read and dropped.
const STEP_BYTES_MAX: usize = 2 << 20;
/// What a line costs beside its text: without it, empty lines would be endless.
const LINE_COST_BYTES: usize = 32;
const READ_BYTES: usize = 64 << 10;
/// Lines that an error message repeats.
const TAIL_LINES: usize = 20;

/// One step's two streams.
pub(super) struct Output {
    events: Arc<dyn EventSink>,
    step: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bytes: usize,
    tail: VecDeque<String>,
}

impl Output {
    pub(super) fn new(events: Arc<dyn EventSink>, step: usize) -> Self {
        Self {
            events,
            step,
            state: Mutex::default(),
        }
    }

    /// Reads a pipe until every writer has gone.
    pub(super) async fn read(&self, pipe: OwnedFd, stream: Stream) -> std::io::Result<()> {
        let mut pipe = Receiver::from_owned_fd(pipe)?;
        let mut buffer = vec![0; READ_BYTES];
        let mut line = Vec::new();
        loop {
            let read = pipe.read(&mut buffer).await?;
            if read == 0 {
                if !line.is_empty() {
                    self.line(&line, stream);
                }
                return Ok(());
            }
            let mut fresh = &buffer[..read];
            if self.is_full()
                && let Some(start) = last_lines(fresh)
            {
                // Nobody will see the lines before.
                line.clear();
                fresh = &fresh[start..];
            }
            for piece in fresh.split_inclusive(|byte| *byte == b'\n') {
                line.extend_from_slice(piece.strip_suffix(b"\n").unwrap_or(piece));
                while line.len() > LINE_BYTES_MAX {
                    let rest = line.split_off(LINE_BYTES_MAX);
                    self.line(&line, stream);
                    line = rest;
                }
                if piece.ends_with(b"\n") {
                    self.line(&line, stream);
                    line.clear();
                }
            }
        }
    }

    pub(super) fn tail(&self) -> Vec<String> {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .tail
            .iter()
            .cloned()
            .collect()
    }

    fn is_full(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).bytes > STEP_BYTES_MAX
    }

    fn line(&self, line: &[u8], stream: Stream) {
        let text = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned();
        let (told, first_untold) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.tail.len() == TAIL_LINES {
                state.tail.pop_front();
            }
            state.tail.push_back(text.clone());
            let told = state.bytes <= STEP_BYTES_MAX;
            state.bytes += text.len() + LINE_COST_BYTES;
            (told, told && state.bytes > STEP_BYTES_MAX)
        };
        if told {
            self.events.emit(Event::Output {
                step: self.step,
                stream,
                text,
            });
        }
        if first_untold {
            let text =
                format!("[the step has written more than {STEP_BYTES_MAX} bytes; the rest is not shown]");
            self.events.emit(Event::Output {
                step: self.step,
                stream,
                text,
            });
        }
    }
}

/// Where the lines that an error message would repeat begin; none if the bytes have fewer.
fn last_lines(bytes: &[u8]) -> Option<usize> {
    let mut ends = bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    ends.nth(TAIL_LINES).map(|(end, _)| end + 1)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl EventSink for Lines {
        fn emit(&self, event: Event) {
            if let Event::Output { text, .. } = event {
                self.0.lock().unwrap().push(text);
            }
        }
    }

    async fn lines_of(written: Vec<u8>) -> (Vec<String>, Vec<String>) {
        let lines = Arc::new(Lines::default());
        let output = Output::new(lines.clone(), 0);
        let (read, write) = rustix::pipe::pipe().unwrap();
        let writer = std::thread::spawn(move || std::fs::File::from(write).write_all(&written).unwrap());
        output.read(read, Stream::Stdout).await.unwrap();
        writer.join().unwrap();
        let lines = lines.0.lock().unwrap().clone();
        (lines, output.tail())
    }

    #[tokio::test]
    async fn lines_are_split_and_bounded() {
        let long = "x".repeat(LINE_BYTES_MAX + 5);
        let (lines, _) = lines_of(format!("a\r\n\n{long}\nlast").into_bytes()).await;
        assert_eq!(lines, ["a", "", &"x".repeat(LINE_BYTES_MAX), "xxxxx", "last"]);
    }

    #[tokio::test]
    async fn a_flood_is_cut_off_but_its_end_is_kept() {
        let mut flood = "y".repeat(99).into_bytes();
        flood.push(b'\n');
        let mut flood = flood.repeat(STEP_BYTES_MAX / 100 + 1000);
        flood.extend_from_slice(b"the reason\n");
        let (lines, tail) = lines_of(flood).await;
        assert!(lines.len() < STEP_BYTES_MAX / 100 + 10);
        assert!(lines.last().unwrap().contains("not shown"));
        assert_eq!(tail.last().unwrap(), "the reason");
        assert_eq!(tail.len(), TAIL_LINES);
    }

    #[tokio::test]
    async fn empty_lines_are_bounded_too() {
        let mut flood = b"\n".repeat(STEP_BYTES_MAX);
        flood.extend_from_slice(&b"z\n".repeat(TAIL_LINES - 1));
        flood.extend_from_slice(b"no newline");
        let (lines, tail) = lines_of(flood).await;
        assert!(
            lines.len() <= STEP_BYTES_MAX / LINE_COST_BYTES + 2,
            "{}",
            lines.len()
        );
        assert_eq!((tail.len(), tail[0].as_str()), (TAIL_LINES, "z"));
        assert_eq!(tail.last().unwrap(), "no newline");
    }
}
