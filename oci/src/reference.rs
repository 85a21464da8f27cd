//! References: what comes after `/manifests/` in a URL, and what a person writes to name an image.

use std::fmt;
use std::str::FromStr;

use crate::{Digest, DigestError, NameError, RepoName, Tag};

/// The canonical name of Docker Hub, as in `docker.io/library/debian`.
pub const DOCKER_HUB: &str = "docker.io";

/// A manifest's reference inside a repository: a tag or a digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    Tag(Tag),
    Digest(Digest),
}

/// An image's name as people write it: `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`.
///
/// Docker's rule decides whether the first component is a host: it is one if it contains `.` or `:`, or is
/// `localhost`. Without a host, `registry` is `None`; the caller decides whose name it is (see
/// [`ImageRef::or_docker_hub`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageRef {
    pub registry: Option<String>,
    pub repository: RepoName,
    pub tag: Option<Tag>,
    pub digest: Option<Digest>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error("image reference {reference:?}: {source}")]
    Name { reference: String, source: NameError },
    #[error("image reference {reference:?}: {source}")]
    Digest { reference: String, source: DigestError },
    #[error("image reference {0:?} has no repository name")]
    NoRepository(String),
    #[error("image reference {0:?} has an invalid registry host")]
    Host(String),
}

impl Reference {
    pub fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Tag(_) => None,
            Self::Digest(digest) => Some(digest),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    /// A text with `:` can only be a digest, since tags have none.
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if text.contains(':') {
            let digest = text.parse().map_err(|source| ReferenceError::Digest {
                reference: text.to_owned(),
                source,
            })?;
            return Ok(Self::Digest(digest));
        }
        let tag = text.parse().map_err(|source| ReferenceError::Name {
            reference: text.to_owned(),
            source,
        })?;
        Ok(Self::Tag(tag))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => write!(f, "{digest}"),
        }
    }
}

impl ImageRef {
    /// What to ask a registry for: the digest where there is one, else the tag, else `latest`.
    pub fn reference(&self) -> Reference {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => Reference::Digest(*digest),
            (None, Some(tag)) => Reference::Tag(tag.clone()),
            (None, None) => Reference::Tag(Tag::latest()),
        }
    }

    /// Reads a name without a host as Docker Hub's, with `library/` before a single component.
    pub fn or_docker_hub(mut self) -> Self {
        let registry = self.registry.get_or_insert_with(|| DOCKER_HUB.to_owned());
        if matches!(
            registry.as_str(),
            "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com"
        ) {
            DOCKER_HUB.clone_into(registry);
        }
        if registry == DOCKER_HUB && !self.repository.as_str().contains('/') {
            let name = format!("library/{}", self.repository);
            self.repository = name.parse().unwrap_or(self.repository);
        }
        self
    }

    /// The repository here under which an image of another registry is kept: `HOST/NAME`, a port's `:` as `_`
    /// because repository names have none.
    pub fn local_repository(&self) -> Result<RepoName, ReferenceError> {
        let name = match &self.registry {
            Some(host) => format!(
                "{}/{}",
                host.replace(':', "_").to_ascii_lowercase(),
                self.repository
            ),
            None => self.repository.to_string(),
        };
        name.parse().map_err(|source| ReferenceError::Name {
            reference: self.to_string(),
            source,
        })
    }
}

impl FromStr for ImageRef {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let name_error = |source| ReferenceError::Name {
            reference: text.to_owned(),
            source,
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|source| ReferenceError::Digest {
                    reference: text.to_owned(),
                    source,
                })?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (registry, rest) = match rest.split_once('/') {
            Some((host, rest)) if is_host(host) => (Some(host), rest),
            _ => (None, rest),
        };
        let (name, tag) = match rest.split_once(':') {
            Some((name, tag)) => (name, Some(tag.parse().map_err(name_error)?)),
            None => (rest, None),
        };
        if name.is_empty() {
            return Err(ReferenceError::NoRepository(text.to_owned()));
        }
        if registry.is_some_and(|host| !is_valid_host(host)) {
            return Err(ReferenceError::Host(text.to_owned()));
        }
        let repository = name.parse().map_err(name_error)?;
        Ok(Self {
            registry: registry.map(str::to_owned),
            repository,
            tag,
            digest,
        })
    }
}

fn is_host(component: &str) -> bool {
    component == "localhost" || component.contains(['.', ':'])
}

fn is_valid_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            if !address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
                return false;
            }
            ("v6", port)
        }
        None => match host.find(':') {
            Some(colon) => host.split_at(colon),
            None => (host, ""),
        },
    };
    let port_valid = match port.strip_prefix(':') {
        Some(digits) => digits.parse::<u16>().is_ok() && digits.bytes().all(|b| b.is_ascii_digit()),
        None => port.is_empty(),
    };
    let name_valid = !name.is_empty()
        && name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        });
    port_valid && name_valid
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(registry) = &self.registry {
            write!(f, "{registry}/")?;
        }
        write!(f, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl serde::Serialize for ImageRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for ImageRef {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_names_are_read_as_docker_reads_them() {
        for (text, registry, repository, tag) in [
            ("debian", None, "debian", None),
            ("debian:12", None, "debian", Some("12")),
            ("team/app:1", None, "team/app", Some("1")),
            ("localhost/app", Some("localhost"), "app", None),
            ("localhost:5000/a/b:t", Some("localhost:5000"), "a/b", Some("t")),
            ("[::1]:5000/a", Some("[::1]:5000"), "a", None),
            ("ghcr.io/x/y:1", Some("ghcr.io"), "x/y", Some("1")),
        ] {
            let image: ImageRef = text.parse().unwrap();
            assert_eq!(image.registry.as_deref(), registry, "{text}");
            assert_eq!(image.repository.as_str(), repository, "{text}");
            assert_eq!(image.tag.as_ref().map(Tag::as_str), tag, "{text}");
            assert_eq!(image.to_string(), text);
        }
    }

    #[test]
    fn docker_hub_names_are_completed_and_kept_here() {
        for (text, name) in [
            ("debian:12", "docker.io/library/debian"),
            ("team/app", "docker.io/team/app"),
            ("index.docker.io/debian", "docker.io/library/debian"),
            ("127.0.0.1:5001/base", "127.0.0.1_5001/base"),
        ] {
            let image = text.parse::<ImageRef>().unwrap().or_docker_hub();
            assert_eq!(image.local_repository().unwrap().as_str(), name);
        }
    }

    #[test]
    fn broken_names_say_what_is_wrong() {
        for text in [
            "",
            "a@sha256:zz",
            "A",
            "a:",
            "host.io/",
            "a b",
            "ex..io/a",
            "host:99999/a",
            "-x.io/a",
        ] {
            assert!(text.parse::<ImageRef>().is_err(), "{text:?}");
        }
    }
}
