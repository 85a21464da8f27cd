//! `<<EOF`: finding heredocs in a line, and their bodies.

use super::Span;
use super::expand::{ExpandError, Expander};

/// A heredoc of an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    pub head: Head,
    /// The lines up to the name, as they stand in the file.
    pub body: String,
    /// The body's place.
    pub span: Span,
}

/// What stands in the instruction's line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub fd: Option<u32>,
    pub name: String,
    /// `<<-`: leading tabs go.
    pub strip_tabs: bool,
    /// The name has no quotes: variables in the body are expanded (COPY and ADD).
    pub expand: bool,
}

impl Heredoc {
    /// The body without leading tabs if `<<-` asks for that.
    pub fn content(&self) -> String {
        if !self.head.strip_tabs {
            return self.body.clone();
        }
        self.body
            .split_inclusive('\n')
            .map(|line| line.trim_start_matches('\t'))
            .collect()
    }
}

/// The heredocs a line announces, in order.
pub fn find(line: &str) -> Result<Vec<Head>, ExpandError> {
    if !line.contains("<<") {
        return Ok(Vec::new());
    }
    let raw = Expander {
        keep_quotes: true,
        keep_escapes: true,
        keep_unset: true,
        join_heredocs: true,
        ..Expander::new('\\')
    };
    // What the shell will not be able to read either has no heredocs.
    let Ok(expansion) = raw.expand(line, &|_| None) else {
        return Ok(Vec::new());
    };
    expansion
        .words
        .iter()
        .filter_map(|word| parse(word).transpose())
        .collect()
}

/// Reads a word such as `3<<-"EOF"`; `None` if it is something else.
pub fn parse(word: &str) -> Result<Option<Head>, ExpandError> {
    let Some((fd, rest)) = word.split_once("<<") else {
        return Ok(None);
    };
    if !fd.chars().all(|c| c.is_ascii_digit()) {
        return Ok(None);
    }
    let (strip_tabs, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.trim_start();
    if rest.is_empty() || rest.contains('<') {
        return Ok(None);
    }
    let plain = Expander {
        keep_unset: true,
        ..Expander::new('\\')
    };
    let quoted = Expander {
        keep_quotes: true,
        ..plain
    };
    let name = plain.expand(rest, &|_| None)?.words;
    let with_quotes = quoted.expand(rest, &|_| None)?.text;
    let [name] = name.as_slice() else {
        return Ok(None);
    };
    let quotes = |text: &str| text.matches(['"', '\'']).count();
    Ok(Some(Head {
        fd: fd.parse().ok(),
        name: name.clone(),
        strip_tabs,
        expand: quotes(name) == quotes(&with_quotes),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(word: &str) -> Option<String> {
        parse(word).unwrap().map(|head| head.name)
    }

    #[test]
    fn words_that_are_heredocs() {
        for word in [
            "<<EOF",
            "<<'EOF'",
            "<<\"EOF\"",
            "<<-EOF",
            "<<-'EOF'",
            "<<EO\"F\"",
            "<< EOF",
            "<<- EOF",
            "7<<EOF",
        ] {
            assert_eq!(name(word).as_deref(), Some("EOF"), "{word}");
        }
        for word in ["", "EOF", "<<", "<<-", "<EOF", "<<<EOF", "<<EOF sh", "x<<EOF"] {
            assert_eq!(name(word), None, "{word}");
        }
        for word in ["<<'EOF", "<<\"EOF", "<<EOF'"] {
            assert!(parse(word).is_err(), "{word}");
        }
        let head = parse("4<<-\"E\"").unwrap().unwrap();
        assert_eq!((head.fd, head.strip_tabs, head.expand), (Some(4), true, false));
        assert!(parse("<<$EOF").unwrap().unwrap().expand);
    }

    #[test]
    fn lines_with_heredocs() {
        let names = |line| -> Vec<String> { find(line).unwrap().into_iter().map(|head| head.name).collect() };
        assert_eq!(names("RUN cat <<A >x && sh <<-'B'"), ["A", "B"]);
        assert_eq!(names("RUN cat << EOF"), ["EOF"]);
        assert_eq!(names("COPY <<$X /y"), ["$X"]);
        assert_eq!(names("RUN '<<A' \"<<B\" <<<c"), Vec::<String>::new());
        assert_eq!(names("RUN it's <<A"), Vec::<String>::new());
    }

    #[test]
    fn tabs_are_stripped_from_every_line() {
        let heredoc = Heredoc {
            head: parse("<<-E").unwrap().unwrap(),
            body: "\t\ta\n \tb\nc\t".into(),
            span: Span::default(),
        };
        assert_eq!(heredoc.content(), "a\n \tb\nc\t");
    }
}
