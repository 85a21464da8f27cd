//! What goes to the terminal: results to standard output, everything else to standard error.
//!
//! The print macros are denied by lint, because they panic when the reader has gone. Here that is an error of its
//! own, on which the program ends quietly (`layeryard images | head`).

use std::fmt::Display;
use std::io::{self, Write as _};

/// Standard output's reader has gone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    #[error("standard output was closed")]
    Closed,
    #[error("cannot write to standard output: {0}")]
    Write(#[source] io::Error),
}

/// One line of a result.
pub(crate) fn line(text: impl Display) -> Result<(), OutputError> {
    bytes(format!("{text}\n").as_bytes())
}

/// A result as it is.
pub(crate) fn bytes(data: &[u8]) -> Result<(), OutputError> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(data).and_then(|()| stdout.flush());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => OutputError::Closed,
        _ => OutputError::Write(error),
    })
}

/// One line for the person who watches; nothing is done about a terminal that has gone.
pub(crate) fn note(text: impl Display) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// One line about something that went on but should be looked at.
pub(crate) fn warn(text: impl Display) {
    note(format_args!("warning: {text}"));
}

/// Whether a person watches standard error, so that progress is worth drawing.
pub(crate) fn is_terminal() -> bool {
    use std::io::IsTerminal as _;
    io::stderr().is_terminal()
}
