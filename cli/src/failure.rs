//! How the program fails: exit codes, and one message with what to do about it.
//!
//! Exit codes are part of the interface (`layeryard --help` lists them): 0 done, 1 the operation failed,
//! 2 the command line or configuration is wrong, 130 cancelled.

use std::fmt::Display;
use std::process::ExitCode;

use crate::output;
use crate::output::OutputError;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const CANCELLED: u8 = 130;

/// The command line or the configuration asks for something that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// The user stopped it.
#[derive(Debug, thiserror::Error)]
#[error("cancelled")]
pub(crate) struct Cancelled;

/// Everything has been said already; only the exit code is left.
#[derive(Debug, thiserror::Error)]
#[error("failed")]
pub(crate) struct Reported;

/// What to do about an error; printed on a line of its own below it.
#[derive(Debug, thiserror::Error)]
#[error("{hint}")]
struct Hint {
    hint: String,
}

pub(crate) trait Advice<T> {
    /// Adds what the user can do about the error.
    fn hint(self, hint: impl Display) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Advice<T> for Result<T, E> {
    fn hint(self, hint: impl Display) -> anyhow::Result<T> {
        self.map_err(|error| {
            error.into().context(Hint {
                hint: hint.to_string(),
            })
        })
    }
}

/// Prints an error once and says with which code the program ends.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if matches!(error.downcast_ref(), Some(OutputError::Closed)) {
        return ExitCode::SUCCESS;
    }
    if !error.is::<Reported>() {
        output::note(describe(error));
    }
    if error.is::<Cancelled>() {
        ExitCode::from(CANCELLED)
    } else if error.is::<Usage>() {
        ExitCode::from(USAGE)
    } else {
        ExitCode::from(FAILED)
    }
}

/// `error: outer: inner: innermost`, then the hint. A cause whose text the message before it repeats is left out.
fn describe(error: &anyhow::Error) -> String {
    let hint = error.downcast_ref::<Hint>().map(|hint| hint.hint.as_str());
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // The hint is a context, hence in the chain.
        if Some(text.as_str()) != hint && !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        // What lies below says the same in a library's words.
        if cause.is::<client::Error>() {
            break;
        }
    }
    let message = format!("error: {}", parts.join(": "));
    match hint {
        Some(hint) => format!("{message}\nhint: {hint}"),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn an_error_is_one_message_with_its_remedy() {
        let error = anyhow!("connection refused");
        let error = Err::<(), _>(error)
            .context("cannot reach http://localhost:5000")
            .hint("start a server");
        let text = describe(&error.unwrap_err());
        assert_eq!(
            text,
            "error: cannot reach http://localhost:5000: connection refused\nhint: start a server"
        );
    }

    #[test]
    fn repeated_causes_are_said_once() {
        let error = anyhow!("no such file").context("cannot read x: no such file");
        assert_eq!(describe(&error), "error: cannot read x: no such file");
    }

    #[test]
    fn the_kind_of_an_error_survives_context_and_hint() {
        let error = Err::<(), _>(Usage("bad".into()))
            .context("in the file")
            .hint("see --help")
            .unwrap_err();
        assert!(error.is::<Usage>());
    }
}
