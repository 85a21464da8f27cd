//! A text with a name, and places in it.

use super::diagnostic::{Diagnostic, Place};

/// The longest part of a line that a message shows.
const EXCERPT_BYTES: usize = 160;

/// Where a text stands in its source: byte offsets and the first line, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// 0 is the Dockerfile; others are ONBUILD triggers of bases.
    pub source: usize,
    pub start: usize,
    pub end: usize,
    pub line: usize,
}

/// A Dockerfile's text, or an ONBUILD trigger's.
#[derive(Clone, Debug)]
pub struct Source {
    /// See [`Span::source`].
    pub id: usize,
    /// What messages call it.
    pub name: String,
    pub text: String,
    /// The offset of each line.
    lines: Vec<usize>,
}

impl Source {
    pub fn new(id: usize, name: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let lines = [0]
            .into_iter()
            .chain(text.match_indices('\n').map(|(index, _)| index + 1))
            .collect();
        Self {
            id,
            name: name.into(),
            text,
            lines,
        }
    }

    pub fn span(&self, start: usize, end: usize) -> Span {
        Span {
            source: self.id,
            start,
            end,
            line: self.line_of(start),
        }
    }

    /// The line (from 1) that holds an offset.
    pub fn line_of(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset)
    }

    /// A line's text without its end, and where it starts.
    pub fn line(&self, number: usize) -> (usize, &str) {
        let start = number
            .checked_sub(1)
            .and_then(|index| self.lines.get(index))
            .copied()
            .unwrap_or(self.text.len());
        let end = self.lines.get(number).copied().unwrap_or(self.text.len());
        let line = self.text.get(start..end).unwrap_or_default();
        (start, line.trim_end_matches(['\n', '\r']))
    }

    /// A message about a place.
    pub fn diagnose(&self, span: Span, message: impl Into<String>) -> Diagnostic {
        let (line_start, line) = self.line(span.line);
        let (line_start, line) = window(line_start, line, span.start);
        let clamp = |offset: usize| offset.saturating_sub(line_start).min(line.len());
        Diagnostic {
            span,
            message: message.into(),
            help: None,
            place: Box::new(Place {
                file: self.name.clone(),
                excerpt: line.to_owned(),
                caret: clamp(span.start)..clamp(span.end),
            }),
        }
    }
}

/// Cuts a long line down to what can be read, around an offset.
fn window(line_start: usize, line: &str, offset: usize) -> (usize, &str) {
    if line.len() <= EXCERPT_BYTES {
        return (line_start, line);
    }
    let boundary = |at: usize| (0..=at).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
    let before = offset.saturating_sub(line_start).min(line.len());
    let start = boundary(before.saturating_sub(EXCERPT_BYTES / 4));
    let end = boundary((start + EXCERPT_BYTES).min(line.len()));
    (line_start + start, &line[start..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_and_lines() {
        let source = Source::new(0, "f", "ab\r\ncd\n");
        assert_eq!(source.line_of(0), 1);
        assert_eq!(source.line_of(3), 1);
        assert_eq!(source.line_of(4), 2);
        assert_eq!(source.line(1), (0, "ab"));
        assert_eq!(source.line(2), (4, "cd"));
        assert_eq!(source.line(9), (7, ""));
        assert_eq!(source.line(0), (7, ""));
    }

    #[test]
    fn messages_show_a_part_of_a_long_line() {
        let text = format!("{}here{}", "ä".repeat(1000), "ö".repeat(1000));
        let source = Source::new(0, "f", text);
        let error = source.diagnose(source.span(2000, 2004), "x");
        let place = error.place.as_ref();
        assert!(place.excerpt.len() <= EXCERPT_BYTES);
        assert_eq!(&place.excerpt[place.caret.clone()], "here");
        let short = Source::new(0, "f", "short").diagnose(
            Span {
                line: 1,
                ..Span::default()
            },
            "x",
        );
        assert_eq!(short.place.excerpt, "short");
    }
}
