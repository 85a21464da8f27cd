//! Physical lines → logical lines: continuations joined, comments dropped, directives taken, heredoc bodies cut out.
//!
//! The lexer knows where every byte of a logical line comes from, so that messages can point at it. It expands nothing.

use super::{Diagnostic, Directives, Source, Span};

/// The longest physical line, in bytes, without its end. BuildKit's limit.
pub const MAX_LINE_BYTES: usize = 64 * 1024 - 1;

/// An instruction's text, its continuation lines joined.
#[derive(Clone, Debug)]
pub struct LogicalLine {
    pub text: String,
    pub span: Span,
    /// The comments above it, without `#`.
    pub comments: Vec<String>,
    /// The first empty line inside a continuation: allowed, but surprising.
    pub empty_continuation: Option<Span>,
    /// (offset in `text`, offset in the source) of each piece.
    pieces: Vec<(usize, usize)>,
}

/// Reads a source line by line.
pub struct Lexer<'a> {
    source: &'a Source,
    offset: usize,
    pub directives: Directives,
    directives_ended: bool,
}

/// A physical line without its end.
struct Physical<'a> {
    start: usize,
    text: &'a str,
}

impl LogicalLine {
    /// The place in the source of a part of `text`.
    pub fn span_of(&self, source: &Source, start: usize, end: usize) -> Span {
        let first = self.offset_of(start);
        let last = if end > start {
            self.offset_of(end - 1) + 1
        } else {
            first
        };
        source.span(first, last.max(first))
    }

    fn offset_of(&self, at: usize) -> usize {
        let index = self.pieces.partition_point(|(start, _)| *start <= at);
        match index.checked_sub(1).and_then(|index| self.pieces.get(index)) {
            Some((start, origin)) => origin + (at - start),
            None => self.span.start,
        }
    }

    fn push(&mut self, text: &str, origin: usize) {
        if !text.is_empty() {
            self.pieces.push((self.text.len(), origin));
            self.text.push_str(text);
        }
    }
}

impl<'a> Lexer<'a> {
    pub fn new(source: &'a Source) -> Self {
        let byte_order_mark = source.text.starts_with('\u{feff}');
        Self {
            source,
            offset: if byte_order_mark { '\u{feff}'.len_utf8() } else { 0 },
            directives: Directives::default(),
            directives_ended: false,
        }
    }

    /// The next instruction's line; `None` at the end.
    pub fn next_line(&mut self) -> Result<Option<LogicalLine>, Diagnostic> {
        let mut comments = Vec::new();
        while let Some(physical) = self.physical()? {
            let trimmed = physical.text.trim_start();
            let start = physical.start + (physical.text.len() - trimmed.len());
            if !self.directives_ended {
                self.directives_ended = !self.directives.take(self.source, start, trimmed)?;
                if !self.directives_ended {
                    continue;
                }
            }
            if let Some(comment) = trimmed.strip_prefix('#') {
                match comment.trim() {
                    "" => comments.clear(),
                    comment => comments.push(comment.to_owned()),
                }
                continue;
            }
            if trimmed.is_empty() {
                continue;
            }
            let mut line = LogicalLine {
                text: String::new(),
                span: self.source.span(start, start),
                comments,
                empty_continuation: None,
                pieces: Vec::new(),
            };
            self.join(&mut line, trimmed, start)?;
            return Ok(Some(line));
        }
        Ok(None)
    }

    /// Joins the first physical line of an instruction and those that continue it.
    fn join(&mut self, line: &mut LogicalLine, first: &str, start: usize) -> Result<(), Diagnostic> {
        let (mut text, mut continues) = self.without_continuation(first);
        let mut origin = start;
        loop {
            line.push(text, origin);
            line.span.end = origin + text.trim_end().len();
            if !continues {
                return Ok(());
            }
            let next = loop {
                let Some(physical) = self.physical()? else {
                    return Ok(());
                };
                let trimmed = physical.text.trim_start();
                if trimmed.is_empty() {
                    let span = self.source.span(physical.start, physical.start);
                    line.empty_continuation.get_or_insert(span);
                } else if !trimmed.starts_with('#') {
                    break physical;
                }
            };
            (text, continues) = self.without_continuation(next.text);
            origin = next.start;
        }
    }

    /// Cuts the escape character off that continues a line. Two of them don't: the first escapes the second.
    fn without_continuation<'t>(&self, text: &'t str) -> (&'t str, bool) {
        let escape = self.directives.escape_char();
        match text.trim_end_matches([' ', '\t']).strip_suffix(escape) {
            Some(rest) if !rest.ends_with(escape) => (rest, true),
            _ => (text, false),
        }
    }

    /// Reads a heredoc's body up to the line that is its name. `None`: the file ends before.
    pub fn heredoc_body(
        &mut self,
        name: &str,
        strip_tabs: bool,
    ) -> Result<Option<(usize, usize)>, Diagnostic> {
        let start = self.offset;
        while let Some(physical) = self.physical()? {
            let text = if strip_tabs {
                physical.text.trim_start_matches('\t')
            } else {
                physical.text
            };
            if text == name {
                return Ok(Some((start, physical.start)));
            }
        }
        Ok(None)
    }

    fn physical(&mut self) -> Result<Option<Physical<'a>>, Diagnostic> {
        let rest = &self.source.text[self.offset..];
        if rest.is_empty() {
            return Ok(None);
        }
        let start = self.offset;
        let length = rest.find('\n').map_or(rest.len(), |index| index + 1);
        self.offset += length;
        let text = rest[..length].trim_end_matches(['\r', '\n']);
        if text.len() > MAX_LINE_BYTES {
            let span = self.source.span(start, start);
            let error = self
                .source
                .diagnose(span, format!("the line is longer than {MAX_LINE_BYTES} bytes"));
            return Err(error.without_excerpt());
        }
        Ok(Some(Physical { start, text }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        let source = Source::new(0, "Dockerfile", text);
        let mut lexer = Lexer::new(&source);
        let mut lines = Vec::new();
        while let Some(line) = lexer.next_line().unwrap() {
            lines.push(line.text);
        }
        lines
    }

    #[test]
    fn continuations_are_joined_and_comments_dropped() {
        assert_eq!(
            lines("\u{feff}  RUN a \\\n# no\n  # nor this\n  b \\  \n\n c\nUSER x"),
            ["RUN a   b  c", "USER x"]
        );
        assert_eq!(
            lines("RUN a \\\r\n  b\r\n\r\nUSER x\r\n"),
            ["RUN a   b", "USER x"]
        );
        assert_eq!(lines("RUN a\\\\\nUSER x"), ["RUN a\\\\", "USER x"]);
        assert_eq!(lines("RUN a \\"), ["RUN a "]);
        assert_eq!(lines("# escape=`\nRUN a\\ `\n b"), ["RUN a\\  b"]);
        assert_eq!(lines("RUN a\\\n\\\nb"), ["RUN ab"]);
    }

    #[test]
    fn spans_point_into_the_source() {
        let source = Source::new(0, "Dockerfile", "FROM a\n RUN ab \\\n  # c\n  cd\n");
        let mut lexer = Lexer::new(&source);
        lexer.next_line().unwrap();
        let line = lexer.next_line().unwrap().unwrap();
        let at = line.text.find("cd").unwrap();
        let span = line.span_of(&source, at, at + 2);
        assert_eq!(&source.text[span.start..span.end], "cd");
        assert_eq!((span.line, line.span.line), (4, 2));
        assert_eq!(
            &source.text[line.span.start..line.span.end],
            "RUN ab \\\n  # c\n  cd"
        );
    }

    #[test]
    fn directives_come_first_and_once() {
        let source = Source::new(
            0,
            "f",
            "# Syntax = docker/dockerfile:1\n#escape=`\n# x=y\n# check=z\nA",
        );
        let mut lexer = Lexer::new(&source);
        let line = lexer.next_line().unwrap().unwrap();
        assert_eq!(lexer.directives.syntax.unwrap().value, "docker/dockerfile:1");
        assert_eq!(lexer.directives.escape.unwrap().value, "`");
        assert_eq!(lexer.directives.check, None);
        assert_eq!(line.comments, ["x=y", "check=z"]);
        for bad in ["# escape=x\n", "#escape=\\\n#escape=`\n"] {
            let source = Source::new(0, "f", bad);
            assert!(Lexer::new(&source).next_line().is_err(), "{bad}");
        }
        let source = Source::new(0, "f", "\n# escape=`\nA b`\nc");
        let mut lexer = Lexer::new(&source);
        assert_eq!(lexer.next_line().unwrap().unwrap().text, "A b`");
    }

    #[test]
    fn a_line_may_be_as_long_as_the_limit() {
        let fits = format!("RUN {}", "x".repeat(MAX_LINE_BYTES - 4));
        assert_eq!(lines(&format!("{fits}\nUSER x")).len(), 2);
        let source = Source::new(0, "f", format!("FROM x\n{fits}y\n"));
        let mut lexer = Lexer::new(&source);
        lexer.next_line().unwrap();
        let error = lexer.next_line().unwrap_err();
        assert_eq!(error.to_string(), "f:2: the line is longer than 65535 bytes");
    }
}
