//! File name patterns: Go's `filepath.Match`, which COPY and ADD use for their sources, and its extension by `**`,
//! which .dockerignore, `--exclude` and `--parents` use.
//!
//! A pattern is a small automaton whose states all advance together, so that matching takes time proportional to
//! pattern × path, whatever an attacker writes.

/// A compiled pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    tokens: Vec<Token>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("a bracket `[` without its `]`, or an empty range in it")]
    Class,
    #[error("a backslash at the end, which escapes nothing")]
    Escape,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// `?`: one character, but not `/`.
    One,
    /// `[…]`, never `/`.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `*`: any number of characters, but no `/`.
    Star,
    /// The choice before a [`Token::Directories`]: go in, or skip it.
    MaybeDirectories,
    /// `**/`: any text that ends in `/`.
    Directories,
    /// `**` at the end, or at the start without a `/`: any text.
    Anything,
}

/// The states an automaton is in: `tokens.len()` is the accepting one.
struct States(Vec<bool>);

impl Pattern {
    /// Compiles a pattern of Go's `filepath.Match`: `*`, `?`, `[a-z]`, `[^a]`, `\x`.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        Self::compile(text, false)
    }

    /// Compiles a pattern that may also hold `**`, as .dockerignore files do.
    pub fn parse_deep(text: &str) -> Result<Self, PatternError> {
        Self::compile(text, true)
    }

    /// Whether the whole of `path` matches.
    pub fn matches(&self, path: &str) -> bool {
        self.run(path).is_some_and(|states| states.accepts())
    }

    /// Whether something below the directory `path` could match.
    pub fn may_match_below(&self, path: &str) -> bool {
        self.run(&format!("{path}/")).is_some()
    }

    /// The text itself if the pattern has no wildcard.
    pub fn literal(&self) -> Option<String> {
        self.tokens
            .iter()
            .map(|token| match token {
                Token::Literal(c) => Some(*c),
                _ => None,
            })
            .collect()
    }

    fn compile(text: &str, deep: bool) -> Result<Self, PatternError> {
        let mut tokens = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '*' if deep && chars.peek() == Some(&'*') => {
                    chars.next();
                    let slash = chars.next_if_eq(&'/').is_some();
                    // `**x` means any name that ends in x, but only if nothing else in it is special.
                    let special = chars.clone().any(|c| ['*', '?', '[', ']', '\\'].contains(&c));
                    let ending = !slash && tokens.is_empty() && !special;
                    if chars.peek().is_none() || ending {
                        tokens.push(Token::Anything);
                    } else if tokens.last() != Some(&Token::Directories) {
                        tokens.extend([Token::MaybeDirectories, Token::Directories]);
                    }
                }
                // Runs of stars are one: states are entered recursively, a step for each.
                '*' if tokens.last() == Some(&Token::Star) => {}
                '*' => tokens.push(Token::Star),
                '?' => tokens.push(Token::One),
                '[' => tokens.push(class(&mut chars)?),
                '\\' => tokens.push(Token::Literal(chars.next().ok_or(PatternError::Escape)?)),
                other => tokens.push(Token::Literal(other)),
            }
        }
        Ok(Self { tokens })
    }

    /// The states after `text`; `None` as soon as there is none left.
    fn run(&self, text: &str) -> Option<States> {
        let mut states = States(vec![false; self.tokens.len() + 1]);
        states.enter(0, &self.tokens);
        for c in text.chars() {
            let mut next = States(vec![false; self.tokens.len() + 1]);
            for (index, token) in self.tokens.iter().enumerate() {
                if states.0[index] {
                    next.advance(index, token, c, &self.tokens);
                }
            }
            if !next.0.contains(&true) {
                return None;
            }
            states = next;
        }
        Some(states)
    }
}

impl States {
    /// Enters a state and those reachable from it without reading.
    fn enter(&mut self, index: usize, tokens: &[Token]) {
        self.0[index] = true;
        match tokens.get(index) {
            Some(Token::Star | Token::Anything) => self.enter(index + 1, tokens),
            Some(Token::MaybeDirectories) => {
                self.enter(index + 1, tokens);
                self.enter(index + 2, tokens);
            }
            _ => {}
        }
    }

    fn advance(&mut self, index: usize, token: &Token, c: char, tokens: &[Token]) {
        let forward = match token {
            Token::Literal(wanted) => *wanted == c,
            Token::One => c != '/',
            Token::Class { negated, ranges } => {
                c != '/' && ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
            Token::Star => {
                if c != '/' {
                    self.enter(index, tokens);
                }
                false
            }
            Token::Anything => {
                self.enter(index, tokens);
                false
            }
            Token::Directories => {
                self.enter(index, tokens);
                c == '/'
            }
            Token::MaybeDirectories => false,
        };
        if forward {
            self.enter(index + 1, tokens);
        }
    }

    fn accepts(&self) -> bool {
        self.0.last() == Some(&true)
    }
}

/// The rest of a class after its `[`.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token, PatternError> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if chars.peek() == Some(&']') && !ranges.is_empty() {
            chars.next();
            return Ok(Token::Class { negated, ranges });
        }
        let low = class_char(chars)?;
        let high = match chars.next_if_eq(&'-') {
            Some(_) => class_char(chars)?,
            None => low,
        };
        ranges.push((low, high));
    }
}

fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char, PatternError> {
    match chars.next() {
        None | Some('-' | ']') => Err(PatternError::Class),
        Some('\\') => chars.next().ok_or(PatternError::Escape),
        Some(c) => Ok(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, path: &str, expected: bool) {
        let compiled = Pattern::parse(pattern).unwrap();
        assert_eq!(compiled.matches(path), expected, "{pattern} on {path}");
    }

    #[track_caller]
    fn check_deep(pattern: &str, path: &str, expected: bool) {
        let compiled = Pattern::parse_deep(pattern).unwrap();
        assert_eq!(compiled.matches(path), expected, "{pattern} on {path}");
    }

    #[test]
    fn wildcards_stop_at_slashes() {
        check("*.go", "main.go", true);
        check("*.go", "cmd/main.go", false);
        check("a?c", "abc", true);
        check("a?c", "a/c", false);
        check("a*b*c", "axxbyyc", true);
        check("a*b*c", "axxbyy", false);
        check("**", "a/b", false);
        check("", "", true);
        check("ä?", "äö", true);
    }

    #[test]
    fn classes_and_escapes() {
        check("[a-c]x", "bx", true);
        check("[^a-c]x", "bx", false);
        check("[^a-c]x", "dx", true);
        check("[^a]b", "/b", false);
        check(r"\*", "*", true);
        check(r"\*", "x", false);
        check(r"[\]]", "]", true);
        for bad in ["[", "[]", "[a", "[a-", "[-a]", "a[]]", r"\", r"[\"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn two_stars_cross_directories() {
        check_deep("**/x", "x", true);
        check_deep("**/x", "a/b/x", true);
        check_deep("**/x", "a/bx", false);
        check_deep("a/**/x", "a/x", true);
        check_deep("a/**/x", "a/b/c/x", true);
        check_deep("a/**/x", "ax", false);
        check_deep("a/**", "a/b/c", true);
        check_deep("a/**", "a", false);
        check_deep("**foo", "barfoo", true);
        check_deep("**fo?", "barfoo", false);
        check_deep("**fo?", "bar/foo", true);
        check_deep("**/*.go", "a/b/c.go", true);
        check_deep("**", "a/b", true);
    }

    #[test]
    fn a_directory_is_entered_only_if_something_below_can_match() {
        let pattern = Pattern::parse_deep("a/*/keep").unwrap();
        assert!(pattern.may_match_below("a"));
        assert!(pattern.may_match_below("a/b"));
        assert!(!pattern.may_match_below("a/b/c"));
        assert!(!pattern.may_match_below("b"));
        assert!(Pattern::parse_deep("**/keep").unwrap().may_match_below("x/y"));
    }

    #[test]
    fn literals_are_recognised() {
        assert_eq!(Pattern::parse(r"a\*b").unwrap().literal().as_deref(), Some("a*b"));
        assert_eq!(Pattern::parse("a*b").unwrap().literal(), None);
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = Pattern::parse_deep(&"**/*a".repeat(40)).unwrap();
        assert!(!pattern.matches(&"a/".repeat(2000)));
        for long in ["*", "**/", "**", "***/"] {
            let pattern = Pattern::parse_deep(&long.repeat(20_000)).unwrap();
            pattern.matches("a/b");
        }
        assert!(Pattern::parse(&"*".repeat(60_000)).unwrap().matches("ab"));
    }
}
