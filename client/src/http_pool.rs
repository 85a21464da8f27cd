//! Connections, shared by everything that speaks to registries in a process.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::{Client, ClientBuilder};
use url::Url;

use crate::endpoint::is_loopback;
use crate::error::{Error, Place};
use crate::guard::{Admission, Guard, GuardedResolver};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Data that nobody acknowledges for this long means that the connection is dead.
const TCP_DEAD_AFTER: Duration = Duration::from_secs(60);
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const USER_AGENT: &str = concat!("layeryard/", env!("CARGO_PKG_VERSION"));

/// A pool of HTTP connections. Cheap to clone; share one among all [`crate::Registry`] values of a process.
#[derive(Clone)]
pub struct Http(Arc<Inner>);

struct Inner {
    way: Way,
    /// For other machines: the system's certificates, and the proxies that the environment names. Made when it is
    /// needed, since reading certificates takes longer than many a command.
    outer: OnceLock<Client>,
    /// For this machine in plain HTTP, which needs neither. (Go's clients, too, use no proxy for loopback.)
    local: OnceLock<Client>,
}

enum Way {
    Tcp(Option<Arc<Guard>>),
    Unix(PathBuf),
}

impl Http {
    pub fn new() -> Self {
        Self::by(Way::Tcp(None))
    }

    /// A pool whose every connection, redirects included, passes `guard`.
    pub fn guarded(guard: Arc<Guard>) -> Self {
        Self::by(Way::Tcp(Some(guard)))
    }

    /// A pool that connects to a unix socket whatever the URL's host.
    pub(crate) fn unix(path: &Path) -> Self {
        Self::by(Way::Unix(path.to_owned()))
    }

    /// Permission to connect to a URL's host, to be held until its answer comes.
    pub(crate) fn admit(&self, url: &Url, place: &Place) -> Result<Option<Admission>, Error> {
        let Way::Tcp(Some(guard)) = &self.0.way else {
            return Ok(None);
        };
        let refused = |source| Error::AddressRefused {
            place: place.clone(),
            source,
        };
        guard.admit(url).map(Some).map_err(refused)
    }

    /// The client that speaks to a URL's host.
    pub(crate) fn client(&self, url: &Url) -> Result<&Client, Error> {
        let local = matches!(self.0.way, Way::Unix(_)) || (url.scheme() == "http" && is_loopback(url));
        let slot = if local { &self.0.local } else { &self.0.outer };
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let client = self.build(local)?;
        Ok(slot.get_or_init(|| client))
    }

    fn by(way: Way) -> Self {
        Self(Arc::new(Inner {
            way,
            outer: OnceLock::new(),
            local: OnceLock::new(),
        }))
    }

    fn build(&self, local: bool) -> Result<Client, Error> {
        let mut builder: ClientBuilder = Client::builder()
            .user_agent(USER_AGENT)
            // Redirects are followed by the transport, which knows where credentials may go.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(KEEP_ALIVE)
            .tcp_user_timeout(TCP_DEAD_AFTER)
            .tcp_nodelay(true);
        if local {
            builder = builder.no_proxy().tls_certs_only(std::iter::empty());
        }
        builder = match &self.0.way {
            Way::Tcp(Some(guard)) => builder.dns_resolver(GuardedResolver(Arc::clone(guard))),
            Way::Tcp(None) => builder,
            Way::Unix(path) => builder.unix_socket(path.as_path()),
        };
        builder.build().map_err(|source| Error::Setup {
            reason: source.to_string(),
            source,
        })
    }
}

impl Default for Http {
    fn default() -> Self {
        Self::new()
    }
}
