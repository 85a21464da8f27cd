//! Errors as text for the log.

use std::error::Error;
use std::fmt::Write;

/// An error with its causes, each once.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let message = next.to_string();
        if !text.ends_with(&message) {
            // Writing to a string can't fail.
            let _ = write!(text, ": {message}");
        }
        cause = next.source();
    }
    text
}
