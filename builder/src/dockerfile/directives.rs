//! Parser directives: `# syntax=`, `# escape=` and `# check=` before anything else in the file.

use super::{Diagnostic, Source, Span};

/// What a file's directives say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    pub syntax: Option<Directive>,
    pub escape: Option<Directive>,
    pub check: Option<Directive>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    pub value: String,
    pub span: Span,
}

impl Directives {
    /// The character that escapes others and continues lines.
    pub fn escape_char(&self) -> char {
        match &self.escape {
            Some(directive) if directive.value == "`" => '`',
            _ => '\\',
        }
    }

    /// Takes a line that may be a directive. False ends the search: it is something else.
    pub(super) fn take(&mut self, source: &Source, start: usize, line: &str) -> Result<bool, Diagnostic> {
        let Some((name, value)) = split(line) else {
            return Ok(false);
        };
        let name = name.to_ascii_lowercase();
        let place = match name.as_str() {
            "syntax" => &mut self.syntax,
            "escape" => &mut self.escape,
            "check" => &mut self.check,
            _ => return Ok(false),
        };
        let span = source.span(start, start + line.trim_end().len());
        if place.is_some() {
            return Err(source.diagnose(span, format!("the directive {name} is given twice")));
        }
        if name == "escape" && value != "\\" && value != "`" {
            return Err(source.diagnose(
                span,
                format!("the escape character must be \\ or `, not {value:?}"),
            ));
        }
        *place = Some(Directive {
            value: value.to_owned(),
            span,
        });
        Ok(true)
    }
}

/// `# name = value`.
fn split(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.strip_prefix('#')?.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let named = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric());
    (named && !value.is_empty()).then_some((name, value))
}
