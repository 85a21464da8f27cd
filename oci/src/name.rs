//! Repository names and tags (distribution spec 1.1, "Pulling manifests").

use std::fmt;
use std::str::FromStr;

/// The longest repository name in bytes: what fits a host name beside it in the 255 that clients accept.
pub const REPO_NAME_LEN_MAX: usize = 255;
/// The longest tag in bytes (the specification's `{0,127}` after the first character).
pub const TAG_LEN_MAX: usize = 128;

/// A repository's name: path components of `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, separated by `/`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepoName(Box<str>);

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Box<str>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error(
        "repository name {0:?} is invalid: components of lower-case letters and digits, joined by `.`, `_`, `__` or dashes, \
         separated by `/`"
    )]
    Repository(String),
    #[error("repository name of {0} bytes is too long: at most {REPO_NAME_LEN_MAX}")]
    RepositoryTooLong(usize),
    #[error(
        "tag {0:?} is invalid: a letter, digit or `_`, then at most 127 letters, digits, `_`, `.` or `-`"
    )]
    Tag(String),
}

impl RepoName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RepoName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.len() > REPO_NAME_LEN_MAX {
            return Err(NameError::RepositoryTooLong(text.len()));
        }
        if !text.split('/').all(is_component) {
            return Err(NameError::Repository(text.to_owned()));
        }
        Ok(Self(text.into()))
    }
}

/// One path component: runs of `[a-z0-9]` with single separators (`.`, `_`, `__`, any number of `-`) between them.
fn is_component(component: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    is_word(first)
        && is_word(last)
        && bytes.split(|&b| is_word(b)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-')
        })
}

impl Tag {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `latest`, what a reference without a tag means.
    pub fn latest() -> Self {
        Self("latest".into())
    }
}

impl FromStr for Tag {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let valid = text.len() <= TAG_LEN_MAX
            && text.bytes().enumerate().all(|(index, b)| {
                b.is_ascii_alphanumeric() || b == b'_' || (index > 0 && matches!(b, b'.' | b'-'))
            })
            && !text.is_empty();
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(NameError::Tag(text.to_owned()))
        }
    }
}

macro_rules! text_newtype {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
text_newtype!(RepoName);
text_newtype!(Tag);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_names_follow_the_specification() {
        for good in [
            "app",
            "library/debian",
            "docker.io/library/debian",
            "a__b/c---d/e.f_g",
            "0/1",
        ] {
            assert_eq!(good.parse::<RepoName>().unwrap().as_str(), good);
        }
        let long = "a".repeat(256);
        for bad in [
            "", "/", "a/", "/a", "a//b", "A", "a..b", "a___b", "-a", "a-", "a/../b", "a b", "a:b", "é", &long,
        ] {
            assert!(bad.parse::<RepoName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn tags_follow_the_specification() {
        for good in ["latest", "_x", "1.0-rc.1", &"a".repeat(128)] {
            assert_eq!(good.parse::<Tag>().unwrap().as_str(), good);
        }
        for bad in ["", ".a", "-a", "a b", "a/b", "a:b", &"a".repeat(129)] {
            assert!(bad.parse::<Tag>().is_err(), "{bad:?}");
        }
    }
}
