//! The Layeryard server that a command talks to, and which image names mean it.

use std::fmt;
use std::str::FromStr;

use anyhow::Context as _;
use client::api_client::Api;
use client::{Access, Options, Registry, credentials};
use oci::{ImageRef, RepoName, Tag};

use crate::failure::{Advice as _, Usage};

/// A server's address: `http://localhost:5000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerUrl {
    secure: bool,
    /// A name, an IPv4 address, or an IPv6 address in brackets.
    host: String,
    port: u16,
}

impl ServerUrl {
    pub(crate) fn secure(&self) -> bool {
        self.secure
    }

    /// `HOST:PORT`, as image names begin.
    pub(crate) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Whether an image name that begins with `host` means this server. The names of the loopback are one.
    pub(crate) fn is_host(&self, host: &str) -> bool {
        let (name, port) = split_port(host, self.default_port());
        port == Some(self.port) && (name == self.host || (is_loopback(name) && is_loopback(&self.host)))
    }

    /// The repository and tag of a name that must be this server's.
    pub(crate) fn own_name(&self, text: &str) -> anyhow::Result<(RepoName, Tag)> {
        let image: ImageRef = text.parse().map_err(|error| Usage(format!("{error}")))?;
        if let Some(host) = image.registry.as_deref().filter(|host| !self.is_host(host)) {
            return Err(Usage(format!(
                "name {text:?} is of the registry {host}, but the image is made on {self}: leave the host out, then \
                 send it there with `layeryard copy`"
            ))
            .into());
        }
        if image.digest.is_some() {
            return Err(Usage(format!(
                "name {text:?} has a digest: a new image's is not known yet"
            ))
            .into());
        }
        Ok((image.repository, image.tag.unwrap_or_else(Tag::latest)))
    }

    /// The build API, with the user's credential if there is one.
    pub(crate) async fn api(&self) -> anyhow::Result<Api> {
        Ok(Api::new(&self.to_string(), self.options().await?)?)
    }

    /// The distribution API.
    pub(crate) async fn registry(&self) -> anyhow::Result<Registry> {
        Ok(Registry::new(&self.to_string(), self.options().await?)?)
    }

    async fn options(&self) -> anyhow::Result<Options> {
        let access = match credentials::find_async(&self.authority()).await? {
            Some(credential) => Access::Credential(credential),
            None => Access::Anonymous,
        };
        Ok(Options {
            access,
            ..Options::default()
        })
    }

    /// Says what to do when nobody is there.
    pub(crate) fn explain<T, E: Into<anyhow::Error>>(&self, result: Result<T, E>) -> anyhow::Result<T> {
        result
            .map_err(Into::into)
            .or_else(|error| match error.downcast_ref() {
                Some(client::Error::Unreachable { .. }) => Err(error)
                    .hint("start a server with `layeryard serve`, or name another with --server URL"),
                _ => Err(error),
            })
    }

    fn default_port(&self) -> u16 {
        if self.secure { 443 } else { 80 }
    }
}

impl FromStr for ServerUrl {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let wrong = || {
            Usage(format!(
                "server address {text:?} is invalid: expected http://HOST:PORT or https://HOST[:PORT]"
            ))
        };
        let (secure, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return Err(wrong().into()),
            // `localhost:5000` alone means what a browser would make of it.
            None => (false, text),
        };
        let authority = rest.trim_end_matches('/');
        if authority.is_empty() || authority.contains(['/', '@', '?', '#', ' ']) {
            return Err(wrong().into());
        }
        let (host, port) = split_port(authority, if secure { 443 } else { 80 });
        let port = port.ok_or_else(wrong).context("the port is not a number")?;
        Ok(Self {
            secure,
            host: host.to_ascii_lowercase(),
            port,
        })
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

/// Takes `host:port` apart; an IPv6 address keeps its brackets.
fn split_port(authority: &str, default: u16) -> (&str, Option<u16>) {
    let after_address = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    match authority[after_address..].rfind(':') {
        Some(colon) => {
            let (host, port) = authority.split_at(after_address + colon);
            (host, port[1..].parse().ok())
        }
        None => (authority, Some(default)),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> ServerUrl {
        text.parse().unwrap()
    }

    #[test]
    fn the_loopback_has_many_names() {
        for host in ["localhost:5000", "127.0.0.1:5000", "[::1]:5000"] {
            assert!(server("http://localhost:5000").is_host(host), "{host}");
            assert!(server("http://[::1]:5000/").is_host(host), "{host}");
        }
        for host in ["localhost:5001", "localhost", "example.com:5000"] {
            assert!(!server("http://localhost:5000").is_host(host), "{host}");
        }
        assert!(server("https://example.com").is_host("example.com"));
    }

    #[test]
    fn a_new_images_name_is_the_servers_own() {
        let server = server("http://127.0.0.1:5000");
        let (repository, tag) = server.own_name("localhost:5000/team/app:1").unwrap();
        assert_eq!((repository.as_str(), tag.as_str()), ("team/app", "1"));
        assert_eq!(server.own_name("app").unwrap().1, Tag::latest());
        for (name, message) in [
            ("ghcr.io/team/app", "layeryard copy"),
            (
                "app@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                "digest",
            ),
            ("App", "invalid"),
        ] {
            let error = server.own_name(name).unwrap_err();
            assert!(
                error.is::<Usage>() && error.to_string().contains(message),
                "{name}: {error}"
            );
        }
    }

    #[test]
    fn broken_addresses_are_refused() {
        for text in [
            "",
            "ftp://x",
            "http://",
            "http://user@host",
            "http://host:port",
            "http://host/path",
        ] {
            assert!(
                text.parse::<ServerUrl>().is_err_and(|error| error.is::<Usage>()),
                "{text:?}"
            );
        }
    }
}
