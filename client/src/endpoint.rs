//! Where a registry is and how it is spoken to.

use std::net::IpAddr;

use url::{Host, Url};

use crate::api::Credential;
use crate::error::Error;
use crate::http_pool::Http;

/// How to speak to a registry.
#[derive(Clone, Default)]
pub struct Options {
    pub access: Access,
    /// Plain HTTP although the host is not loopback.
    pub insecure: bool,
    /// The connection pool; a new one by default.
    pub http: Option<Http>,
}

/// Who asks.
#[derive(Clone, Default)]
pub enum Access {
    #[default]
    Anonymous,
    /// A user's credential, given to whatever scheme the registry asks for.
    Credential(Credential),
    /// A bearer token sent with every request, such as a build's.
    Bearer(String),
}

impl std::fmt::Debug for Access {
    /// Names the kind, never the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Credential(credential) => credential.fmt(f),
            Self::Bearer(_) => f.write_str("Bearer"),
        }
    }
}

/// The base URL of a registry named as in an image reference, or given as a URL.
pub(crate) fn base_url(address: &str, insecure: bool) -> Result<Url, Error> {
    let invalid = || Error::Address(address.to_owned());
    if address.starts_with("http://") || address.starts_with("https://") {
        let url: Url = address.parse().map_err(|_| invalid())?;
        return if url.host().is_some() {
            Ok(url)
        } else {
            Err(invalid())
        };
    }
    let host = match address {
        "docker.io" | "index.docker.io" => "registry-1.docker.io",
        other => other,
    };
    let url: Url = format!("https://{host}/").parse().map_err(|_| invalid())?;
    let plain = url.path() == "/" && url.query().is_none() && url.username().is_empty();
    if url.host().is_none() || !plain || url.fragment().is_some() {
        return Err(invalid());
    }
    if insecure || is_loopback(&url) {
        return format!("http://{host}/").parse().map_err(|_| invalid());
    }
    Ok(url)
}

/// Whether a URL points at this machine by its very text.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).to_canonical().is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_become_urls_as_docker_does_it() {
        for (address, insecure, url) in [
            ("docker.io", false, "https://registry-1.docker.io/"),
            ("ghcr.io", false, "https://ghcr.io/"),
            ("localhost:5000", false, "http://localhost:5000/"),
            ("localhost", false, "http://localhost/"),
            ("127.0.0.1:5001", false, "http://127.0.0.1:5001/"),
            ("[::1]:5000", false, "http://[::1]:5000/"),
            ("registry.lan:5000", false, "https://registry.lan:5000/"),
            ("registry.lan:5000", true, "http://registry.lan:5000/"),
            ("http://10.0.0.1:5000", false, "http://10.0.0.1:5000/"),
        ] {
            assert_eq!(base_url(address, insecure).unwrap().as_str(), url);
        }
        for bad in ["", "a b", "host/path", "user@host", "host?x", "http://"] {
            assert!(base_url(bad, false).is_err(), "{bad:?}");
        }
    }
}
