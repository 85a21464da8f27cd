//! Logical lines → [`Dockerfile`].

use std::ops::Range;

use super::ast::{Arguments, Dockerfile, Flag, Instruction, Pair, Word};
use super::heredoc::{self, Heredoc};
use super::lexer::{Lexer, LogicalLine};
use super::{Diagnostic, Diagnostics, Keyword, Source, words};

/// Parses a Dockerfile's text. All its errors are reported, except that a heredoc without an end swallows the rest.
pub fn parse(file_name: &str, text: &str) -> Result<Dockerfile, Diagnostics> {
    parse_source(Source::new(0, file_name, text))
}

/// Parses a source.
pub fn parse_source(source: Source) -> Result<Dockerfile, Diagnostics> {
    let mut lexer = Lexer::new(&source);
    let mut instructions = Vec::new();
    let mut errors = Vec::new();
    loop {
        match lexer.next_line() {
            Ok(Some(line)) => match instruction(&source, &mut lexer, line) {
                Ok(instruction) => instructions.push(instruction),
                Err(error) => errors.push(error),
            },
            Ok(None) => break,
            Err(error) => {
                errors.push(error);
                break;
            }
        }
    }
    let directives = lexer.directives;
    if instructions.is_empty() && errors.is_empty() {
        let span = source.span(0, 0);
        errors.push(source.diagnose(span, "the file has no instructions"));
    }
    Diagnostics::check(errors)?;
    Ok(Dockerfile {
        source,
        directives,
        instructions,
    })
}

fn instruction(source: &Source, lexer: &mut Lexer<'_>, line: LogicalLine) -> Result<Instruction, Diagnostic> {
    let escape = lexer.directives.escape_char();
    let parser = LineParser {
        source,
        line: &line,
        escape,
    };
    // The bodies of heredocs have to be read even if the line turns out to be wrong.
    let parsed = parser.instruction(0..line.text.len());
    let takes_heredocs = match &parsed {
        Ok(instruction) => takes_heredocs(instruction),
        Err(_) => false,
    };
    let heredocs = if takes_heredocs {
        parser.heredocs(lexer)?
    } else {
        Vec::new()
    };
    let mut parsed = parsed?;
    if let Arguments::Trigger(trigger) = &mut parsed.arguments {
        trigger.heredocs.clone_from(&heredocs);
    }
    parsed.heredocs = heredocs;
    parsed.comments = line.comments;
    parsed.empty_continuation = line.empty_continuation;
    Ok(parsed)
}

/// Heredocs belong to RUN, COPY and ADD, also behind ONBUILD, but not to their JSON forms.
fn takes_heredocs(instruction: &Instruction) -> bool {
    match &instruction.arguments {
        Arguments::Trigger(trigger) => takes_heredocs(trigger),
        Arguments::Json(_) => false,
        _ => instruction.keyword.is_some_and(Keyword::takes_heredocs),
    }
}

/// Parses within one logical line; all ranges are of its text.
struct LineParser<'a> {
    source: &'a Source,
    line: &'a LogicalLine,
    escape: char,
}

impl LineParser<'_> {
    fn instruction(&self, range: Range<usize>) -> Result<Instruction, Diagnostic> {
        let range = self.trimmed(range);
        let text = &self.line.text[range.clone()];
        let (name, rest) = words::first_word(text);
        let name = self.word(range.start..range.start + name.len());
        let keyword = Keyword::parse(&name.raw);
        let rest = range.start + rest..range.end;
        let (flags, skip) = words::flags(&self.line.text[rest.clone()], self.escape);
        let flags = flags
            .into_iter()
            .map(|flag| {
                let (name, value) = match flag.text[2..].split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (&flag.text[2..], None),
                };
                Flag {
                    name: name.to_owned(),
                    value,
                    span: self.span(rest.start + flag.range.start..rest.start + flag.range.end),
                }
            })
            .collect();
        let arguments = self.arguments(keyword, self.trimmed(rest.start + skip..rest.end))?;
        Ok(Instruction {
            keyword,
            name,
            flags,
            arguments,
            heredocs: Vec::new(),
            text: text.to_owned(),
            comments: Vec::new(),
            empty_continuation: None,
            span: self.span(range),
        })
    }

    fn arguments(&self, keyword: Option<Keyword>, range: Range<usize>) -> Result<Arguments, Diagnostic> {
        let Some(keyword) = keyword else {
            return Ok(Arguments::Text(self.word(range)));
        };
        match keyword {
            Keyword::Add | Keyword::Copy | Keyword::Volume => match self.json(range.clone())? {
                Some(words) => Ok(Arguments::Json(words)),
                None => Ok(Arguments::Words(self.at_blanks(range))),
            },
            Keyword::Run | Keyword::Cmd | Keyword::Entrypoint | Keyword::Shell => self.json_or_text(range),
            Keyword::From | Keyword::Expose => Ok(Arguments::Words(self.at_blanks(range))),
            Keyword::Arg => Ok(Arguments::Words(self.quoted(range))),
            Keyword::Env | Keyword::Label => self.pairs(keyword, range).map(Arguments::Pairs),
            Keyword::Healthcheck => self.check(range),
            Keyword::Onbuild => {
                let instruction = self.instruction(range)?;
                Ok(Arguments::Trigger(Box::new(instruction)))
            }
            Keyword::Maintainer | Keyword::Stopsignal | Keyword::User | Keyword::Workdir => {
                Ok(Arguments::Text(self.word(range)))
            }
        }
    }

    fn json_or_text(&self, range: Range<usize>) -> Result<Arguments, Diagnostic> {
        match self.json(range.clone())? {
            Some(words) => Ok(Arguments::Json(words)),
            None => Ok(Arguments::Text(self.word(range))),
        }
    }

    /// A JSON array of strings. What is no valid JSON is the shell form; other arrays are errors.
    fn json(&self, range: Range<usize>) -> Result<Option<Vec<Word>>, Diagnostic> {
        let text = &self.line.text[range.clone()];
        if !text.starts_with('[') {
            return Ok(None);
        }
        let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else {
            return Ok(None);
        };
        let span = self.span(range);
        values
            .into_iter()
            .map(|value| match value {
                serde_json::Value::String(raw) => Ok(Word { raw, span }),
                other => Err(self
                    .source
                    .diagnose(
                        span,
                        format!("the JSON array holds {other}, which is not a string"),
                    )
                    .help("quote it: the elements of an exec form are strings")),
            })
            .collect::<Result<Vec<_>, _>>()
            .map(Some)
    }

    /// ENV and LABEL: `name=value …`, or the old `name value`.
    fn pairs(&self, keyword: Keyword, range: Range<usize>) -> Result<Vec<Pair>, Diagnostic> {
        let words = self.quoted(range.clone());
        let Some(first) = words.first() else {
            return Ok(Vec::new());
        };
        if !first.raw.contains('=') {
            let (name, value) = words::first_word(&self.line.text[range.clone()]);
            if value >= range.len() {
                return Err(self
                    .source
                    .diagnose(
                        self.span(range),
                        format!("{keyword} needs a value after the name"),
                    )
                    .help(format!("write {keyword} {name}=value")));
            }
            return Ok(vec![Pair {
                name: self.word(range.start..range.start + name.len()),
                value: self.word(range.start + value..range.end),
                legacy: true,
            }]);
        }
        words
            .into_iter()
            .map(|word| match word.raw.split_once('=') {
                None => Err(self
                    .source
                    .diagnose(word.span, format!("{:?} is not of the form name=value", word.raw))
                    .help("quote values that contain blanks: name=\"a b\"")),
                Some((name, value)) => Ok(Pair {
                    name: Word {
                        raw: name.to_owned(),
                        span: word.span,
                    },
                    value: Word {
                        raw: value.to_owned(),
                        span: word.span,
                    },
                    legacy: false,
                }),
            })
            .collect()
    }

    fn check(&self, range: Range<usize>) -> Result<Arguments, Diagnostic> {
        let text = &self.line.text[range.clone()];
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let kind = self.word(range.start..range.start + end);
        let command = self.json_or_text(self.trimmed(range.start + end..range.end))?;
        Ok(Arguments::Check {
            kind,
            command: Box::new(command),
        })
    }

    fn heredocs(&self, lexer: &mut Lexer<'_>) -> Result<Vec<Heredoc>, Diagnostic> {
        let line_span = self.span(0..self.line.text.len());
        let heads = heredoc::find(&self.line.text).map_err(|error| {
            self.source
                .diagnose(line_span, format!("in a heredoc's name: {error}"))
        })?;
        heads
            .into_iter()
            .map(|head| match lexer.heredoc_body(&head.name, head.strip_tabs)? {
                Some((start, end)) => Ok(Heredoc {
                    body: self.source.text[start..end].to_owned(),
                    span: self.source.span(start, end),
                    head,
                }),
                None => Err(self.source.diagnose(
                    line_span,
                    format!("the heredoc {0} is not ended by a line {0}", head.name),
                )),
            })
            .collect()
    }

    fn at_blanks(&self, range: Range<usize>) -> Vec<Word> {
        self.words(range.start, words::at_blanks(&self.line.text[range]))
    }

    fn quoted(&self, range: Range<usize>) -> Vec<Word> {
        self.words(range.start, words::quoted(&self.line.text[range], self.escape))
    }

    fn words(&self, base: usize, ranges: Vec<Range<usize>>) -> Vec<Word> {
        ranges
            .into_iter()
            .map(|range| self.word(base + range.start..base + range.end))
            .collect()
    }

    fn word(&self, range: Range<usize>) -> Word {
        Word {
            raw: self.line.text[range.clone()].to_owned(),
            span: self.span(range),
        }
    }

    fn span(&self, range: Range<usize>) -> super::Span {
        self.line.span_of(self.source, range.start, range.end)
    }

    fn trimmed(&self, range: Range<usize>) -> Range<usize> {
        let text = &self.line.text[range.clone()];
        let start = range.start + (text.len() - text.trim_start().len());
        let end = range.end - (text.len() - text.trim_end().len());
        start..end.max(start)
    }
}

#[cfg(test)]
#[path = "parser_tests.rs"]
mod tests;
