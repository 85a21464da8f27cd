//! Web pages. A server that everybody on its machine may use without credentials could also be used by any page that is
//! open in a browser there: one of another site, which says so in `Origin` (Fetch standard), or one whose name was made
//! to point to this machine (DNS rebinding), which shows in `Host`. No registry client sends an `Origin`.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Request, header};

use super::{ApiError, Code};
use crate::config::Config;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// By what names this server may be called, and by which pages.
pub(crate) struct Site {
    /// Whether nobody has said who may do what. Then only this machine is meant, by a name that nobody else can have.
    undecided: bool,
    /// Other names of this server.
    names: Vec<String>,
}

impl Site {
    pub(crate) fn of(config: &Config) -> Self {
        // Without /proc this machine has one name less.
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let names = config
            .public_hosts
            .iter()
            .map(|host| name_of(host))
            .chain([machine.trim()]);
        Self {
            undecided: !config.access.is_decided(),
            names: names.map(str::to_ascii_lowercase).collect(),
        }
    }

    /// Whether a request over the network is let in. `guarded`: there are accounts, so that who shows none may do little.
    pub(super) fn admit<B>(&self, request: &Request<B>, guarded: bool) -> Result<(), ApiError> {
        let headers = request.headers();
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = host.or(request.uri().authority().map(|authority| authority.as_str()));
        if self.undecided
            && !guarded
            && let Some(host) = host
            && !self.is_own(name_of(host))
        {
            return Err(ApiError::new(
                Code::Denied,
                format!(
                    "this server is open to its own machine alone, and {host:?} may be anybody's name for it: call it localhost, \
                     list the name in public_hosts, or say in [access] who may do what"
                ),
            ));
        }
        // With credentials of its own making a page would have to ask first, and is not answered.
        if request.method().is_safe() || headers.contains_key(header::AUTHORIZATION) {
            return Ok(());
        }
        match foreign(headers, host) {
            None => Ok(()),
            Some(page) => Err(ApiError::new(
                Code::Denied,
                format!("web pages of {page} may not change anything here"),
            )),
        }
    }

    fn is_own(&self, name: &str) -> bool {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        // Nobody can register a name without a dot, nor one below these two (RFC 6761; ICANN 2024).
        name.parse::<IpAddr>().is_ok()
            || !name.contains('.')
            || name.ends_with(".localhost")
            || name.ends_with(".internal")
            || self.names.contains(&name)
    }
}

/// The site of the page that sent a request, if it isn't this server's own.
fn foreign<'h>(headers: &'h HeaderMap, host: Option<&str>) -> Option<&'h str> {
    let text = |value: &'h HeaderValue| value.to_str().unwrap_or("another site");
    if let Some(origin) = headers.get(header::ORIGIN).map(text) {
        let page = origin.split_once("://").map(|(_, authority)| authority);
        let same = page
            .zip(host)
            .is_some_and(|(page, host)| page.eq_ignore_ascii_case(host));
        return (!same).then_some(origin);
    }
    let site = headers.get(SEC_FETCH_SITE).map(text)?;
    (!matches!(site, "same-origin" | "none")).then_some("another site")
}

/// A host without its port: `name:5000`, `127.0.0.1`, `[::1]:5000`.
fn name_of(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn site() -> Site {
        Site::of(&Config {
            public_hosts: vec!["registry.example.com:443".to_owned()],
            ..Config::default()
        })
    }

    fn request(method: Method, headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri("/v2/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn admits(method: Method, headers: &[(&str, &str)]) -> bool {
        site().admit(&request(method, headers), false).is_ok()
    }

    #[test]
    fn names_that_anybody_can_have_are_refused_while_all_is_open() {
        for host in [
            "localhost:5000",
            "127.0.0.1:5000",
            "[::1]:5000",
            "[::1]",
            "10.0.0.7",
            "LOCALHOST.",
            "registry:5000",
            "a.localhost",
            "host.docker.internal:5000",
            "registry.example.com",
        ] {
            assert!(admits(Method::GET, &[("host", host)]), "{host}");
        }
        for host in ["evil.example:5000", "localhost.evil.example", "127.0.0.1.nip.io"] {
            assert!(!admits(Method::GET, &[("host", host)]), "{host}");
            assert!(
                site()
                    .admit(&request(Method::GET, &[("host", host)]), true)
                    .is_ok(),
                "{host}: there are accounts"
            );
        }
    }

    #[test]
    fn pages_change_nothing_unless_they_are_the_servers_own() {
        let host = ("host", "localhost:5000");
        let own = ("origin", "http://LOCALHOST:5000");
        let fetched = |site| ("sec-fetch-site", site);
        assert!(admits(Method::POST, &[host]));
        assert!(admits(Method::POST, &[host, own]));
        assert!(admits(Method::POST, &[host, fetched("same-origin")]));
        for foreign in [
            ("origin", "http://localhost:3000"),
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("origin", ""),
            fetched("cross-site"),
            fetched("same-site"),
        ] {
            for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
                assert!(!admits(method.clone(), &[host, foreign]), "{method} {foreign:?}");
            }
            assert!(
                admits(Method::GET, &[host, foreign]),
                "reading is the browser's to refuse"
            );
            assert!(
                site()
                    .admit(&request(Method::POST, &[host, foreign]), true)
                    .is_err(),
                "{foreign:?}: what accounts leave open is not the pages' either"
            );
        }
    }
}
