//! What the parser makes of a Dockerfile: every instruction with its raw words and their places; nothing is expanded,
//! and unknown instructions are kept.

use super::heredoc::Heredoc;
use super::{Directives, Keyword, Source, Span};

/// A parsed Dockerfile.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    pub source: Source,
    pub directives: Directives,
    pub instructions: Vec<Instruction>,
}

/// An instruction.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// `None`: there is no such instruction.
    pub keyword: Option<Keyword>,
    /// As written.
    pub name: Word,
    pub flags: Vec<Flag>,
    pub arguments: Arguments,
    pub heredocs: Vec<Heredoc>,
    /// The line, continuation lines joined, without heredoc bodies.
    pub text: String,
    /// The comments above it, without `#`.
    pub comments: Vec<String>,
    /// An empty line inside a continuation.
    pub empty_continuation: Option<Span>,
    /// The whole of it, heredoc bodies excepted.
    pub span: Span,
}

/// A word as it stands in the file, quotes and all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    pub raw: String,
    pub span: Span,
}

/// `--name` or `--name=value`, its quotes removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    pub name: String,
    pub value: Option<String>,
    pub span: Span,
}

/// What follows an instruction's name and flags.
#[derive(Clone, Debug)]
pub enum Arguments {
    /// The rest of the line as one text: USER, WORKDIR, shell forms. It may be empty.
    Text(Word),
    /// A JSON array of strings.
    Json(Vec<Word>),
    /// Words between blanks (COPY, FROM), or quoted words (ARG).
    Words(Vec<Word>),
    /// ENV and LABEL.
    Pairs(Vec<Pair>),
    /// HEALTHCHECK: `NONE` or `CMD`, and what follows it.
    Check { kind: Word, command: Box<Arguments> },
    /// ONBUILD.
    Trigger(Box<Instruction>),
}

/// `name=value` in ENV and LABEL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub name: Word,
    pub value: Word,
    /// The old form `ENV name value`.
    pub legacy: bool,
}

impl Instruction {
    /// The name in capitals, for messages.
    pub fn title(&self) -> String {
        self.name.raw.to_uppercase()
    }
}
