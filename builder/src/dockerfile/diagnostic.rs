//! Errors in Dockerfiles, shown as people need them: file and line, the line itself, a caret, a hint.

use std::fmt;
use std::ops::Range;

use super::Span;

/// More errors at once help nobody.
const MAX_ERRORS: usize = 20;

/// One error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub span: Span,
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    pub place: Box<Place>,
}

/// A span as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: String,
    /// The first line of the span; nothing is shown if it is empty.
    pub excerpt: String,
    /// The span in the excerpt, in bytes.
    pub caret: Range<usize>,
}

/// The errors of a Dockerfile, at least one, in the order of their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostic {
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Shows no line, since none is to blame.
    #[must_use]
    pub fn without_excerpt(mut self) -> Self {
        self.place.excerpt.clear();
        self
    }

    /// Adds a hint if there is one.
    #[must_use]
    pub fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }
}

impl Diagnostics {
    /// `Ok` if there is no error.
    pub fn check(mut errors: Vec<Diagnostic>) -> Result<(), Self> {
        errors.sort_by_key(|error| (error.span.source, error.span.start));
        errors.truncate(MAX_ERRORS);
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Self(errors))
        }
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.span.line.to_string();
        let Place { file, excerpt, caret } = self.place.as_ref();
        write!(f, "{file}:{line}: {}", self.message)?;
        if !excerpt.is_empty() {
            let before = excerpt.get(..caret.start).unwrap_or_default();
            let marked = excerpt.get(caret.clone()).unwrap_or_default();
            // Tabs stay tabs, so that the caret stands below what it marks.
            let indent: String = before
                .chars()
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            let carets = "^".repeat(marked.chars().count().max(1));
            let gutter = " ".repeat(line.len());
            write!(f, "\n  {line} | {excerpt}")?;
            write!(f, "\n  {gutter} | {indent}{carets}")?;
        }
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}
impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use crate::dockerfile::Source;

    #[test]
    fn the_line_is_shown_with_a_caret() {
        let source = Source::new(0, "Dockerfile", "FROM x\n\tRUNN y\n");
        let error = source
            .diagnose(source.span(8, 12), "unknown instruction RUNN")
            .help("did you mean RUN?");
        assert_eq!(
            error.to_string(),
            "Dockerfile:2: unknown instruction RUNN\n  2 | \tRUNN y\n    | \t^^^^\n  help: did you mean RUN?"
        );
    }
}
