//! Variable expansion and quote removal, by the rules of BuildKit's shell lexer.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

use super::operators::apply;
use super::substitute::{Glob, GlobError};

/// How words are read.
#[derive(Clone, Copy, Debug)]
pub struct Expander {
    /// `\`, or what the directive `escape` says.
    pub escape: char,
    /// Keep quotes in the result.
    pub keep_quotes: bool,
    /// Keep escape characters in the result.
    pub keep_escapes: bool,
    /// Quotes mean nothing (bodies of heredocs).
    pub ignore_quotes: bool,
    /// Leave references to unknown variables as they are.
    pub keep_unset: bool,
    /// `<<` takes the blanks after it along, so that `<< EOF` is one word.
    pub join_heredocs: bool,
    /// How much variables may bring in.
    pub max_bytes: usize,
}

/// Finds a variable's value.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What a word became.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    pub text: String,
    /// The text cut at blanks that neither quotes nor escapes protect.
    pub words: Vec<String>,
    /// Variables that were found.
    pub used: BTreeSet<String>,
    /// Variables that were not, although no default was given.
    pub unset: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    #[error("a single quote is not closed")]
    SingleQuote,
    #[error("a double quote is not closed")]
    DoubleQuote,
    #[error("`${{` is not closed by `}}`")]
    Brace,
    #[error("`${{name/pattern` lacks the second `/`")]
    Slash,
    #[error("bad substitution: `${{` needs a variable's name after it")]
    BadSubstitution,
    #[error("unsupported modifier `{0}` in a substitution")]
    Modifier(String),
    #[error("{name}: {message}")]
    Required { name: String, message: String },
    #[error("invalid pattern {pattern:?} in a substitution: {source}")]
    Pattern { pattern: String, source: GlobError },
    #[error("substitutions are nested too deeply")]
    Depth,
    #[error("the expanded text is longer than {0} bytes, or takes too long to make")]
    TooLong(usize),
}

/// How deeply `${a:-${b:-…}}` may nest.
const MAX_DEPTH: usize = 64;

/// The longest expanded word: a few lines of `ENV A=$A$A` would fill any memory.
pub const MAX_WORD_BYTES: usize = 1 << 20;

impl Expander {
    pub fn new(escape: char) -> Self {
        Self {
            escape,
            keep_quotes: false,
            keep_escapes: false,
            ignore_quotes: false,
            keep_unset: false,
            join_heredocs: false,
            max_bytes: MAX_WORD_BYTES,
        }
    }

    pub fn expand(&self, word: &str, lookup: Lookup<'_>) -> Result<Expansion, ExpandError> {
        let mut run = Run {
            rules: *self,
            chars: word.chars().peekable(),
            lookup,
            expansion: Expansion::default(),
            depth: 0,
            substituted: 0,
        };
        let characters = run.until(None, self.keep_escapes)?;
        let mut expansion = run.expansion;
        expansion.text = characters.iter().map(|c| c.value).collect();
        expansion.words = split(&characters);
        Ok(expansion)
    }
}

/// A character of the result, and whether it may separate words.
#[derive(Clone, Copy)]
struct Character {
    value: char,
    protected: bool,
}

fn split(characters: &[Character]) -> Vec<String> {
    characters
        .split(|c| !c.protected && c.value.is_whitespace())
        .filter(|word| !word.is_empty())
        .map(|word| word.iter().map(|c| c.value).collect())
        .collect()
}

fn text_of(characters: &[Character]) -> String {
    characters.iter().map(|c| c.value).collect()
}

/// One pass over a word.
struct Run<'a> {
    rules: Expander,
    chars: Peekable<Chars<'a>>,
    lookup: Lookup<'a>,
    expansion: Expansion,
    depth: usize,
    /// Bytes that variables have brought in; all else is as long as the word itself.
    substituted: usize,
}

impl Run<'_> {
    /// Reads up to `stop` (which is consumed), or to the end.
    fn until(&mut self, stop: Option<char>, keep_escapes: bool) -> Result<Vec<Character>, ExpandError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(ExpandError::Depth);
        }
        let mut out = Vec::new();
        let mut put = |text: &str, protected| {
            out.extend(text.chars().map(|value| Character { value, protected }));
        };
        let quotes = !self.rules.ignore_quotes;
        loop {
            let Some(&c) = self.chars.peek() else {
                if let Some(stop) = stop {
                    return Err(if stop == '/' {
                        ExpandError::Slash
                    } else {
                        ExpandError::Brace
                    });
                }
                break;
            };
            if Some(c) == stop {
                self.chars.next();
                break;
            }
            match c {
                '$' => put(&self.dollar()?, false),
                '\'' if quotes => put(&self.single_quoted()?, true),
                '"' if quotes => put(&self.double_quoted(keep_escapes)?, true),
                '<' if self.rules.join_heredocs => put(&self.heredoc_sign(), true),
                c if c == self.rules.escape => {
                    self.chars.next();
                    if keep_escapes {
                        put(&c.to_string(), true);
                    }
                    if let Some(escaped) = self.chars.next() {
                        put(&escaped.to_string(), true);
                    }
                }
                c => {
                    self.chars.next();
                    put(&c.to_string(), false);
                }
            }
        }
        self.depth -= 1;
        Ok(out)
    }

    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        let mut out = String::new();
        self.quote(&mut out);
        loop {
            match self.chars.peek() {
                None => return Err(ExpandError::SingleQuote),
                Some('\'') => {
                    self.quote(&mut out);
                    return Ok(out);
                }
                Some(_) => out.extend(self.chars.next()),
            }
        }
    }

    fn double_quoted(&mut self, keep_escapes: bool) -> Result<String, ExpandError> {
        let mut out = String::new();
        self.quote(&mut out);
        loop {
            match self.chars.peek().copied() {
                None => return Err(ExpandError::DoubleQuote),
                Some('"') => {
                    self.quote(&mut out);
                    return Ok(out);
                }
                Some('$') => out.push_str(&self.dollar()?),
                Some(c) if c == self.rules.escape => {
                    self.chars.next();
                    let escape = self.rules.escape;
                    let escaped = self.chars.next_if(|c| matches!(c, '"' | '$') || *c == escape);
                    // Before anything else the escape character is an ordinary one.
                    if keep_escapes || escaped.is_none() {
                        out.push(escape);
                    }
                    out.extend(escaped);
                }
                Some(_) => out.extend(self.chars.next()),
            }
        }
    }

    fn quote(&mut self, out: &mut String) {
        let quote = self.chars.next();
        if self.rules.keep_quotes {
            out.extend(quote);
        }
    }

    fn heredoc_sign(&mut self) -> String {
        self.chars.next();
        let mut out = "<".to_owned();
        if self.chars.next_if_eq(&'<').is_some() {
            out.push('<');
            while let Some(blank) = self.chars.next_if(|c| c.is_whitespace()) {
                out.push(blank);
            }
        }
        out
    }

    /// `$name` or `${…}`.
    fn dollar(&mut self) -> Result<String, ExpandError> {
        let text = self.substitution()?;
        self.substituted += text.len();
        if self.substituted > self.rules.max_bytes {
            return Err(ExpandError::TooLong(self.rules.max_bytes));
        }
        Ok(text)
    }

    fn substitution(&mut self) -> Result<String, ExpandError> {
        self.chars.next();
        if self.chars.next_if_eq(&'{').is_some() {
            return self.braces();
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        match self.get(&name) {
            None if self.rules.keep_unset => Ok(format!("${name}")),
            value => Ok(value.unwrap_or_default()),
        }
    }

    /// What follows `${`.
    fn braces(&mut self) -> Result<String, ExpandError> {
        match self.chars.peek() {
            None => return Err(ExpandError::Brace),
            Some('{' | '}' | ':') => return Err(ExpandError::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        let (empty_counts_as_unset, operator) = match self.chars.next() {
            Some('}') => {
                return match self.get(&name) {
                    None if self.rules.keep_unset => Ok(format!("${{{name}}}")),
                    value => Ok(value.unwrap_or_default()),
                };
            }
            Some('/') => return self.replace(&name),
            Some(':') => (true, self.chars.next()),
            operator => (false, operator),
        };
        let sign = |operator| format!("{}{operator}", if empty_counts_as_unset { ":" } else { "" });
        match operator {
            None => Err(ExpandError::Brace),
            // `:` asks whether a value is empty, which no pattern does.
            Some(operator @ ('#' | '%')) if empty_counts_as_unset => {
                Err(ExpandError::Modifier(sign(operator)))
            }
            Some(operator @ ('-' | '+' | '?' | '#' | '%')) => {
                let word = text_of(&self.until(Some('}'), matches!(operator, '#' | '%'))?);
                // `${name:-default}` is how one says that a variable may be unset.
                let value = match operator {
                    '#' | '%' => self.get(&name),
                    _ => (self.lookup)(&name).inspect(|_| self.note(&name, true)),
                };
                if value.is_none() && self.rules.keep_unset {
                    return Ok(format!("${{{name}{}{word}}}", sign(operator)));
                }
                apply(&name, value, operator, empty_counts_as_unset, word)
            }
            Some(operator) => Err(ExpandError::Modifier(sign(operator))),
        }
    }

    /// `${name/pattern/text}` and `${name//pattern/text}`, after the first slash.
    fn replace(&mut self, name: &str) -> Result<String, ExpandError> {
        let all = self.chars.next_if_eq(&'/').is_some();
        let pattern = text_of(&self.until(Some('/'), true)?);
        let replacement = text_of(&self.until(Some('}'), true)?);
        let value = self.get(name);
        if value.is_none() && self.rules.keep_unset {
            let slash = if all { "//" } else { "/" };
            return Ok(format!("${{{name}{slash}{pattern}/{replacement}}}"));
        }
        let glob = Glob::parse(&pattern).map_err(|source| ExpandError::Pattern { pattern, source })?;
        let limit = self.rules.max_bytes;
        glob.replace(&value.unwrap_or_default(), &replacement, all, limit)
            .ok_or(ExpandError::TooLong(limit))
    }

    /// A variable's name: digits, one of the shell's special parameters, or letters, digits and `_`.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.chars.peek() {
            Some(c) if c.is_numeric() => {
                while let Some(digit) = self.chars.next_if(|c| c.is_numeric()) {
                    name.push(digit);
                }
                return name;
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => {
                name.extend(self.chars.next());
                return name;
            }
            _ => {}
        }
        while let Some(c) = self.chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
            name.push(c);
        }
        name
    }

    fn get(&mut self, name: &str) -> Option<String> {
        let value = (self.lookup)(name);
        self.note(name, value.is_some());
        value
    }

    fn note(&mut self, name: &str, is_set: bool) {
        let names = if is_set {
            &mut self.expansion.used
        } else {
            &mut self.expansion.unset
        };
        names.insert(name.to_owned());
    }
}

#[cfg(test)]
#[path = "expand_tests.rs"]
mod tests;
