//! `[[policy]]`: what may happen in which repositories.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use oci::RepoName;
use oci::access::RepoPattern;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ConfigError, require, units};

/// A rule for some repositories. Where several match, the strictest of each kind holds.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// What refusals call it.
    pub name: String,
    pub repositories: Vec<RepoPattern>,
    /// Nothing is pushed and nothing is deleted.
    pub read_only: bool,
    /// Tags that name for ever what they named first.
    pub immutable_tags: Vec<TagPattern>,
    /// Bytes that a repository may have, the trash and what it shares with others included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Quota {
    #[serde(with = "units::size")]
    pub bytes: u64,
}

/// Which tags go. One stays that any of the conditions keeps; deleted ones can be restored for a while.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Tags that it is about; none: all.
    pub tags: Vec<TagPattern>,
    /// So many that were set last stay, of each repository.
    pub keep_last: u32,
    /// Those stay that were set less long ago.
    #[serde(with = "units::time")]
    pub keep_newer_than: Duration,
    /// Those stay that were pulled less long ago.
    #[serde(with = "units::time")]
    pub keep_pulled_within: Duration,
    /// How often tags are looked at.
    #[serde(with = "units::time")]
    pub interval: Duration,
}

/// `v*`, `*-rc`, `latest`: `*` stands for anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagPattern(String);

impl Policy {
    pub fn is_for(&self, repository: &RepoName) -> bool {
        self.repositories
            .iter()
            .any(|pattern| pattern.matches(repository))
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        require(
            !self.name.is_empty(),
            "policy.name",
            "is missing: refusals tell it",
        )?;
        require(
            !self.repositories.is_empty(),
            "policy.repositories",
            format!("policy {:?} names no repository: [\"**\"] means all", self.name),
        )?;
        let Some(retention) = &self.retention else {
            return Ok(());
        };
        let keeps = retention.keep_last > 0
            || !retention.keep_newer_than.is_zero()
            || !retention.keep_pulled_within.is_zero();
        require(
            keeps,
            "policy.retention",
            format!(
                "policy {:?} would delete every tag: say keep_last, keep_newer_than or keep_pulled_within",
                self.name
            ),
        )?;
        require(
            !retention.interval.is_zero(),
            "policy.retention.interval",
            "must be longer than 0s",
        )
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            tags: Vec::new(),
            keep_last: 0,
            keep_newer_than: Duration::ZERO,
            keep_pulled_within: Duration::ZERO,
            interval: Duration::from_secs(3600),
        }
    }
}

impl Retention {
    pub fn is_for(&self, tag: &str) -> bool {
        self.tags.is_empty() || self.tags.iter().any(|pattern| pattern.matches(tag))
    }
}

impl TagPattern {
    pub fn matches(&self, tag: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = tag.strip_prefix(first) else {
            return false;
        };
        let mut parts: Vec<&str> = parts.collect();
        let Some(last) = parts.pop() else {
            return rest.is_empty();
        };
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tag pattern {0:?} is invalid: expected a tag in which * stands for anything, such as \"v*\"")]
pub struct TagPatternError(String);

impl FromStr for TagPattern {
    type Err = TagPatternError;

    fn from_str(text: &str) -> Result<Self, TagPatternError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '*');
        if text.is_empty() || !text.chars().all(allowed) {
            return Err(TagPatternError(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for TagPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for TagPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TagPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, tag, matches) in [
            ("latest", "latest", true),
            ("latest", "latest2", false),
            ("v*", "v1.2", true),
            ("v*", "v", true),
            ("v*", "xv", false),
            ("*", "any", true),
            ("*-rc", "1-rc", true),
            ("*-rc", "1-rc2", false),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
        ] {
            let parsed: TagPattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(tag), matches, "{pattern} {tag}");
        }
        for bad in ["", "a/b", "v?", "ü"] {
            assert!(bad.parse::<TagPattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_policy_that_would_delete_everything_is_refused() {
        let mut policy = Policy {
            name: "all".into(),
            repositories: vec!["**".parse().unwrap()],
            retention: Some(Retention::default()),
            ..Policy::default()
        };
        let error = policy.validate().unwrap_err().to_string();
        assert!(error.contains("keep_last"), "{error}");
        policy.retention = None;
        policy.validate().unwrap();
        assert!(Policy::default().validate().is_err());
    }
}
