//! The patterns inside `${name#pattern}` and `${name/pattern/text}`: `*` and `?`, which match no line feed, and escapes.

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Vec<Token>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Literal(char),
    One,
    Many,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    #[error("invalid escape `\\{0}`")]
    Escape(String),
    #[error("it is longer than {MAX_TOKENS} characters")]
    TooLong,
}

/// The longest pattern, so that matching stays quick.
const MAX_TOKENS: usize = 1024;
/// Characters times tokens that one replacement may look at.
const MAX_WORK: usize = 1 << 28;

impl Glob {
    /// `\*`, `\?` and `\\` stand for themselves. `\}` and `\/` are escaped for `${…}`, not for the pattern.
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if tokens.len() == MAX_TOKENS {
                return Err(GlobError::TooLong);
            }
            tokens.push(match c {
                '*' if tokens.last() == Some(&Token::Many) => continue,
                '*' => Token::Many,
                '?' => Token::One,
                '\\' => match chars.next() {
                    Some(escaped @ ('*' | '?' | '\\' | '}' | '/')) => Token::Literal(escaped),
                    other => return Err(GlobError::Escape(other.into_iter().collect())),
                },
                other => Token::Literal(other),
            });
        }
        Ok(Self(tokens))
    }

    /// The value without the shortest or longest beginning that matches.
    pub fn trim_start(&self, value: &str, longest: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let (ends, _) = self.ends(&chars);
        let end = if longest { ends.last() } else { ends.first() };
        chars[end.copied().unwrap_or(0)..].iter().collect()
    }

    /// The value without the shortest or longest ending that matches.
    pub fn trim_end(&self, value: &str, longest: bool) -> String {
        let reversed = Self(self.0.iter().rev().cloned().collect());
        let backwards: String = value.chars().rev().collect();
        let rest = reversed.trim_start(&backwards, longest);
        rest.chars().rev().collect()
    }

    /// Replaces the first match, or each; the longest at a place. `None`: the result is longer than the limit,
    /// or too much work.
    pub fn replace(&self, value: &str, replacement: &str, all: bool, max_bytes: usize) -> Option<String> {
        let chars: Vec<char> = value.chars().collect();
        let mut out = String::new();
        let mut at = 0;
        let mut previous_end = None;
        let mut work = 0;
        while at <= chars.len() {
            if out.len() > max_bytes || work > MAX_WORK {
                return None;
            }
            let (ends, looked_at) = self.ends(&chars[at..]);
            work += looked_at * self.0.len();
            let end = ends.last().map(|length| at + length);
            match end {
                // An empty match right after another one is none.
                Some(end) if end > at || previous_end != Some(at) => {
                    out.push_str(replacement);
                    previous_end = Some(end);
                    if !all {
                        out.extend(&chars[end..]);
                        return Some(out);
                    }
                    if end > at {
                        at = end;
                        continue;
                    }
                }
                _ => {}
            }
            out.extend(chars.get(at));
            at += 1;
        }
        Some(out)
    }

    /// Where a match that begins at the start can end, ascending; and how many characters it took to know.
    fn ends(&self, chars: &[char]) -> (Vec<usize>, usize) {
        let accepting = self.0.len();
        let mut states = vec![false; accepting + 1];
        enter(&self.0, &mut states, 0);
        let mut ends = Vec::new();
        for position in 0..=chars.len() {
            if states[accepting] {
                ends.push(position);
            }
            let Some(&c) = chars.get(position).filter(|_| states.contains(&true)) else {
                return (ends, position);
            };
            let mut next = vec![false; accepting + 1];
            for (index, token) in self.0.iter().enumerate().filter(|(index, _)| states[*index]) {
                match token {
                    Token::Literal(wanted) if *wanted == c => enter(&self.0, &mut next, index + 1),
                    Token::One if c != '\n' => enter(&self.0, &mut next, index + 1),
                    Token::Many if c != '\n' => enter(&self.0, &mut next, index),
                    _ => {}
                }
            }
            states = next;
        }
        (ends, chars.len())
    }
}

fn enter(tokens: &[Token], states: &mut [bool], index: usize) {
    states[index] = true;
    if tokens.get(index) == Some(&Token::Many) {
        enter(tokens, states, index + 1);
    }
}
