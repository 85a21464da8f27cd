//! Patterns of repository names. Each is one range of the names in byte order, so that listing what a pattern covers is
//! a range of an index and never a scan.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::RepoName;

/// Which repositories something is about: `team/app` (that one), `team/app*` (those whose last component begins so),
/// `team/*` (directly below), `team/**` (anywhere below), `**` (all).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepoPattern {
    /// What a name is or begins with.
    stem: Box<str>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    Exact,
    /// Anything but a `/` may follow.
    Component,
    /// Something must follow.
    Below,
}

/// Names from `low` on, below `high`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NameRange {
    pub low: String,
    /// None: no end.
    pub high: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "repository pattern {0:?} is invalid: expected a name (`team/app`), the beginning of one (`team/app*`), `team/*`, \
     `team/**` or `**`"
)]
pub struct PatternError(String);

impl RepoPattern {
    /// All repositories.
    pub fn all() -> Self {
        Self {
            stem: "".into(),
            kind: Kind::Below,
        }
    }

    pub fn exactly(name: &RepoName) -> Self {
        Self {
            stem: name.as_str().into(),
            kind: Kind::Exact,
        }
    }

    pub fn matches(&self, name: &RepoName) -> bool {
        let name = name.as_str();
        match self.kind {
            Kind::Exact => *self.stem == *name,
            Kind::Component => name
                .strip_prefix(&*self.stem)
                .is_some_and(|rest| !rest.contains('/')),
            Kind::Below => name
                .strip_prefix(&*self.stem)
                .is_some_and(|rest| !rest.is_empty()),
        }
    }

    pub fn is_all(&self) -> bool {
        self.kind == Kind::Below && self.stem.is_empty()
    }

    /// The names among which all that match are.
    pub fn range(&self) -> NameRange {
        let low = self.stem.to_string();
        let mut high = low.clone();
        match (self.kind, high.pop()) {
            (Kind::Exact, _) => NameRange {
                // Below everything that can follow; a zero is no text for PostgreSQL.
                high: Some(format!("{low}\u{1}")),
                low,
            },
            (_, None) => NameRange { low, high: None },
            // Stems are ASCII below 0x7f, so that the last character has a successor.
            (_, Some(last)) => {
                high.push(char::from_u32(last as u32 + 1).unwrap_or(char::MAX));
                NameRange {
                    low,
                    high: Some(high),
                }
            }
        }
    }
}

impl NameRange {
    /// Ranges in order that together cover what `ranges` do, none touching another.
    pub fn union(mut ranges: Vec<Self>) -> Vec<Self> {
        ranges.sort();
        let mut merged: Vec<Self> = Vec::new();
        for range in ranges {
            match merged.last_mut() {
                Some(last) if last.high.as_ref().is_none_or(|high| range.low <= *high) => {
                    let longer = match (&last.high, &range.high) {
                        (Some(a), Some(b)) => Some(a.max(b).clone()),
                        _ => None,
                    };
                    last.high = longer;
                }
                _ => merged.push(range),
            }
        }
        merged
    }
}

impl FromStr for RepoPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let wrong = || PatternError(text.to_owned());
        let (stem, kind) = if let Some(stem) = text.strip_suffix("**") {
            if !(stem.is_empty() || stem.ends_with('/')) {
                return Err(wrong());
            }
            (stem, Kind::Below)
        } else if let Some(stem) = text.strip_suffix('*') {
            (stem, Kind::Component)
        } else {
            (text, Kind::Exact)
        };
        let example = match kind {
            Kind::Exact => stem.to_owned(),
            // What may follow decides whether the beginning of a name is one.
            Kind::Component | Kind::Below => format!("{stem}a"),
        };
        example.parse::<RepoName>().map_err(|_| wrong())?;
        Ok(Self {
            stem: stem.into(),
            kind,
        })
    }
}

impl fmt::Display for RepoPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = match self.kind {
            Kind::Exact => "",
            Kind::Component => "*",
            Kind::Below => "**",
        };
        write!(f, "{}{end}", self.stem)
    }
}

impl Serialize for RepoPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RepoPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl fmt::Debug for RepoPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RepoPattern({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 9] = [
        "a",
        "app",
        "team",
        "team-b/x",
        "team/app",
        "team/app-2",
        "team/app/x",
        "team/b",
        "teams/app",
    ];

    fn matching(pattern: &str) -> Vec<&'static str> {
        let pattern: RepoPattern = pattern.parse().unwrap();
        let range = pattern.range();
        let names = NAMES.into_iter();
        let matching: Vec<_> = names
            .filter(|name| pattern.matches(&name.parse().unwrap()))
            .collect();
        for name in &matching {
            let below = range.high.as_deref().is_none_or(|high| *name < high);
            assert!(
                *name >= range.low.as_str() && below,
                "{pattern}: {name} outside {range:?}"
            );
        }
        matching
    }

    #[test]
    fn each_form_matches_what_it_says() {
        assert_eq!(matching("team/app"), ["team/app"]);
        assert_eq!(matching("team/app*"), ["team/app", "team/app-2"]);
        assert_eq!(matching("team/*"), ["team/app", "team/app-2", "team/b"]);
        assert_eq!(
            matching("team/**"),
            ["team/app", "team/app-2", "team/app/x", "team/b"]
        );
        assert_eq!(matching("team*"), ["team"]);
        assert_eq!(matching("*"), ["a", "app", "team"]);
        assert_eq!(matching("**"), NAMES);
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "", "***", "a**", "*/a", "a/*/b", "a//**", "/**", "A*", "a/", "../**", "a*b", "a/**/b", "é*",
        ] {
            assert!(text.parse::<RepoPattern>().is_err(), "{text}");
        }
        for text in ["a", "a*", "a-*", "a/*", "a/**", "*", "**"] {
            assert_eq!(text.parse::<RepoPattern>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn ranges_are_joined() {
        let range = |text: &str| text.parse::<RepoPattern>().unwrap().range();
        let union = |texts: &[&str]| NameRange::union(texts.iter().map(|text| range(text)).collect());
        assert_eq!(union(&["team/**", "team/app", "team/a*"]), [range("team/**")]);
        assert_eq!(union(&["b", "a"]), [range("a"), range("b")]);
        assert_eq!(union(&["b", "**", "a"]), [range("**")]);
        assert_eq!(union(&[]), []);
    }
}
