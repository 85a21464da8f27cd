//! Cutting the text of an instruction into words: ranges of bytes, nothing expanded and no quote removed.

use std::ops::Range;

/// Blanks between words of COPY, FROM and the like. Other Unicode blanks belong to a word.
const BLANKS: [char; 5] = ['\t', '\x0b', '\x0c', '\r', ' '];

/// Words between blanks; quotes mean nothing.
pub fn at_blanks(text: &str) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start = None;
    for (index, c) in text.char_indices() {
        if BLANKS.contains(&c) {
            words.extend(start.take().map(|start| start..index));
        } else {
            start.get_or_insert(index);
        }
    }
    words.extend(start.map(|start| start..text.len()));
    words
}

/// The first word and where the second part begins.
pub fn first_word(text: &str) -> (&str, usize) {
    let end = text.find(BLANKS).unwrap_or(text.len());
    let rest = &text[end..];
    (&text[..end], end + (rest.len() - rest.trim_start().len()))
}

/// Words between blanks that neither quotes nor the escape character protect, as in ENV and ARG.
///
/// A lone escape character at the end belongs to no word.
pub fn quoted(text: &str, escape: char) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start: Option<usize> = None;
    let mut end = 0;
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((index, c)) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            words.extend(start.take().map(|start| start..index));
            continue;
        }
        let start_of_word = *start.get_or_insert(index);
        end = index + c.len_utf8();
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            // Nothing is escaped between single quotes.
            Some('\'') => {}
            _ if c == escape => match chars.next() {
                Some((index, escaped)) => end = index + escaped.len_utf8(),
                None => {
                    end = index;
                    start = (end > start_of_word).then_some(start_of_word);
                }
            },
            _ => {}
        }
    }
    words.extend(start.map(|start| start..end));
    words
}

/// A leading `--flag`: its place, and its text without quotes and escapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFlag {
    pub text: String,
    pub range: Range<usize>,
}

/// Cuts the leading flags off. Returns them and where the rest begins; `--` ends them.
pub fn flags(text: &str, escape: char) -> (Vec<RawFlag>, usize) {
    let mut flags = Vec::new();
    let mut at = 0;
    loop {
        at += text[at..].len() - text[at..].trim_start().len();
        if !text[at..].starts_with("--") {
            return (flags, at);
        }
        let (word, length) = unquote(&text[at..], escape);
        let range = at..at + length;
        at = range.end;
        if word == "--" {
            at += text[at..].len() - text[at..].trim_start().len();
            return (flags, at);
        }
        flags.push(RawFlag { text: word, range });
    }
}

/// The first word of a text without its quotes and escapes, and its length.
fn unquote(text: &str, escape: char) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((index, c)) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => return (word, index),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (_, c) if c == escape => word.extend(chars.next().map(|(_, escaped)| escaped)),
            (_, c) => word.push(c),
        }
    }
    (word, text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str, ranges: Vec<Range<usize>>) -> Vec<&str> {
        ranges.into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn words_between_blanks() {
        let text = "a  \"b c\"\t[d";
        assert_eq!(texts(text, at_blanks(text)), ["a", "\"b", "c\"", "[d"]);
        assert_eq!(first_word("RUN \t x y"), ("RUN", 6));
        assert_eq!(first_word("RUN"), ("RUN", 3));
    }

    #[test]
    fn quoted_words_stay_whole() {
        let check = |text: &'static str| texts(text, quoted(text, '\\'));
        assert_eq!(check(r#" a="b c" d='e "f' "#), [r#"a="b c""#, r#"d='e "f'"#]);
        assert_eq!(check(r"a\ b c\\ d"), [r"a\ b", r"c\\", "d"]);
        assert_eq!(check(r#""a\" b" '\' c"#), [r#""a\" b""#, r"'\'", "c"]);
        assert_eq!(check(r"a\"), ["a"]);
        assert_eq!(check(r"a \"), ["a"]);
        assert_eq!(check("'' x"), ["''", "x"]);
        assert_eq!(check("\"open x"), ["\"open x"]);
        assert_eq!(check(""), Vec::<&str>::new());
    }

    #[test]
    fn flags_lead() {
        let check = |text: &str| {
            let (found, rest) = flags(text, '\\');
            let texts: Vec<String> = found.into_iter().map(|flag| flag.text).collect();
            (texts.join("|"), text[rest..].to_owned())
        };
        assert_eq!(check("--a=1  --b x --c"), ("--a=1|--b".into(), "x --c".into()));
        assert_eq!(
            check(r#"--a="x y" --b='\'' --c=d\ e z"#),
            (r"--a=x y|--b='|--c=d e".into(), "z".into())
        );
        assert_eq!(check("--a -- --b"), ("--a".into(), "--b".into()));
        assert_eq!(check("-x"), (String::new(), "-x".into()));
        assert_eq!(check("--a"), ("--a".into(), String::new()));
        assert_eq!(flags("--a=x` y z", '`').0[0].text, "--a=x y");
    }
}
