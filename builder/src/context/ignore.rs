//! .dockerignore files.

use super::pattern::{Pattern, PatternError};

/// The rules of an ignore file. The last rule that matches a path, or a directory above it, decides.
#[derive(Clone, Debug, Default)]
pub struct IgnoreRules {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    pattern: Pattern,
    /// `!`: what matches is kept.
    keeps: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    #[error(".dockerignore:{line}: pattern {pattern:?} is malformed: {source}")]
    Pattern {
        line: usize,
        pattern: String,
        source: PatternError,
    },
    #[error(".dockerignore:{line}: `!` needs a pattern after it")]
    LoneNegation { line: usize },
}

impl IgnoreRules {
    /// Reads an ignore file's text.
    pub fn parse(text: &str) -> Result<Self, IgnoreError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rules = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.starts_with('#') {
                continue;
            }
            let line_number = index + 1;
            let (keeps, pattern) = match line.trim().strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line.trim()),
            };
            if pattern.is_empty() {
                if keeps {
                    return Err(IgnoreError::LoneNegation { line: line_number });
                }
                continue;
            }
            let cleaned = clean(pattern);
            let pattern = Pattern::parse_deep(&cleaned).map_err(|source| IgnoreError::Pattern {
                line: line_number,
                pattern: cleaned.clone(),
                source,
            })?;
            rules.push(Rule { pattern, keeps });
        }
        Ok(Self { rules })
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a path (relative to the context, `/` between names) is left out. A file is left out with its directory
    /// unless a later rule keeps it.
    pub fn is_ignored(&self, path: &str) -> bool {
        let path = path.trim_matches('/');
        let deciding = self
            .rules
            .iter()
            .rev()
            .find(|rule| prefixes(path).any(|prefix| rule.pattern.matches(prefix)));
        deciding.is_some_and(|rule| !rule.keeps)
    }

    /// Whether a walk need not enter a directory: it is left out, and no `!` rule can keep anything below it.
    ///
    /// A `!` rule that matches the directory itself was overruled by a later rule, which overrules it below too.
    pub fn can_skip_dir(&self, path: &str) -> bool {
        let path = path.trim_matches('/');
        self.is_ignored(path)
            && !self
                .rules
                .iter()
                .any(|rule| rule.keeps && rule.pattern.may_match_below(path))
    }
}

/// The path and every directory above it.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let ends = path.match_indices('/').map(|(index, _)| index);
    ends.chain([path.len()]).map(|end| &path[..end])
}

/// Go's `filepath.Clean` without a leading `/`.
fn clean(pattern: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in pattern.split('/') {
        match name {
            "" | "." => {}
            ".." if names.last().is_some_and(|last| *last != "..") => {
                names.pop();
            }
            ".." if pattern.starts_with('/') => {}
            name => names.push(name),
        }
    }
    if names.is_empty() {
        ".".to_owned()
    } else {
        names.join("/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rules: &str, ignored: &[&str], kept: &[&str]) {
        let rules = IgnoreRules::parse(rules).unwrap();
        for path in ignored {
            assert!(rules.is_ignored(path), "{path} is kept");
        }
        for path in kept {
            assert!(!rules.is_ignored(path), "{path} is ignored");
        }
    }

    #[test]
    fn comments_count_only_in_the_first_column() {
        check(
            "# a comment\n #b\n\n  c  \r\n",
            &["#b", "c"],
            &["a comment", "# a comment", ""],
        );
    }

    #[test]
    fn what_is_below_an_ignored_directory_is_ignored() {
        check(
            "target\n/build/\n./x/../y",
            &["target", "target/debug/a", "build/a", "y/z"],
            &["a/target", "targets", "x"],
        );
    }

    #[test]
    fn the_last_match_wins() {
        check(
            "*\n!src\n!Cargo.toml\nsrc/secret",
            &["README", "src/secret", "src/secret/key"],
            &["src", "src/a/b.rs", "Cargo.toml"],
        );
        check("!keep\n*", &["keep"], &[]);
        check("docs\n! docs/README.md", &["docs", "docs/a"], &["docs/README.md"]);
    }

    #[test]
    fn two_stars_match_at_any_depth() {
        check(
            "**/*.pyc\n**/node_modules\na/**/z",
            &["x.pyc", "d/e/x.pyc", "p/node_modules/q", "a/z", "a/b/c/z"],
            &["x.py", "z"],
        );
    }

    #[test]
    fn escaped_names_and_the_byte_order_mark() {
        check(
            "\u{feff}first\n\\#hash\n\\!bang",
            &["first", "#hash", "!bang"],
            &[],
        );
    }

    #[test]
    fn malformed_rules_name_their_line() {
        assert_eq!(
            IgnoreRules::parse("a\n[x").unwrap_err().to_string(),
            ".dockerignore:2: pattern \"[x\" is malformed: a bracket `[` without its `]`, or an empty range in it"
        );
        assert_eq!(
            IgnoreRules::parse("!").unwrap_err(),
            IgnoreError::LoneNegation { line: 1 }
        );
    }

    #[test]
    fn walks_enter_ignored_directories_only_for_what_they_may_keep() {
        let rules = IgnoreRules::parse("a\nb\n!a/x/y\n").unwrap();
        assert!(!rules.can_skip_dir("a"));
        assert!(!rules.can_skip_dir("a/x"));
        assert!(rules.can_skip_dir("a/z"));
        assert!(rules.can_skip_dir("b"));
        assert!(!rules.can_skip_dir("c"));
        assert!(!IgnoreRules::parse("*\n!**/keep").unwrap().can_skip_dir("deep/er"));
    }

    /// Recorded answers of moby/patternmatcher.
    #[test]
    fn paths_are_ignored_as_docker_does() {
        let mut count = 0;
        for line in include_str!("../../testdata/dockerignore.jsonl").lines() {
            let case: serde_json::Value = serde_json::from_str(line).unwrap();
            let rules = IgnoreRules::parse(case["rules"].as_str().unwrap()).unwrap();
            for (list, expected) in [("ignored", true), ("kept", false)] {
                for path in case[list].as_array().unwrap() {
                    let path = path.as_str().unwrap();
                    assert_eq!(rules.is_ignored(path), expected, "{path} in {line}");
                    count += 1;
                }
            }
        }
        assert!(count > 1000, "{count}");
    }
}
