//! Which addresses a server-side fetch may connect to: a build names the registry, but the connection comes from the
//! server's network position (decisions/builder.md, 0.12).
//!
//! The check happens after DNS, on the very addresses that are connected to, so that a name that changes its address
//! between check and connect gains nothing.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use parking_lot::Mutex;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Metadata services outside the link-local ranges: Amazon's on IPv6, Alibaba's.
const METADATA_SERVICES: [IpAddr; 2] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
];

/// Refuses link-local, unspecified and multicast addresses and the server's own listeners.
#[derive(Debug, Default)]
pub struct Guard {
    listeners: Mutex<Vec<SocketAddr>>,
    /// How many requests under way use a port of a name: a resolver is told the name alone.
    ports: Mutex<HashMap<String, BTreeMap<u16, usize>>>,
}

/// A request's permission to connect, good for as long as it lives.
#[derive(Debug)]
pub(crate) struct Admission {
    guard: Arc<Guard>,
    /// None for a literal address, which was checked at once.
    name: Option<(String, u16)>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refuses to connect to {host} ({address}): {reason}")]
pub struct AddressRefused {
    pub host: String,
    pub address: String,
    pub reason: &'static str,
}

impl Guard {
    /// A guard that knows the server's own listeners; one at an unspecified address stands for all local addresses.
    pub fn new(listeners: Vec<SocketAddr>) -> Arc<Self> {
        Arc::new(Self {
            listeners: Mutex::new(listeners),
            ports: Mutex::default(),
        })
    }

    /// Takes over the listeners that a server has in the end.
    pub fn set_listeners(&self, listeners: Vec<SocketAddr>) {
        *self.listeners.lock() = listeners;
    }

    /// Checks a literal address at once; a name's addresses are checked when it is resolved, for the ports of the
    /// requests under way.
    pub(crate) fn admit(self: &Arc<Self>, url: &Url) -> Result<Admission, AddressRefused> {
        let port = url.port_or_known_default().unwrap_or(0);
        let name = match url.host() {
            Some(Host::Ipv4(address)) => {
                self.check(&address.to_string(), IpAddr::V4(address), port)?;
                None
            }
            Some(Host::Ipv6(address)) => {
                self.check(&address.to_string(), IpAddr::V6(address), port)?;
                None
            }
            Some(Host::Domain(name)) => {
                let name = name.to_ascii_lowercase();
                let mut ports = self.ports.lock();
                *ports.entry(name.clone()).or_default().entry(port).or_default() += 1;
                Some((name, port))
            }
            None => return Err(refusal(url.as_str(), "none", "the URL has no host")),
        };
        Ok(Admission {
            guard: Arc::clone(self),
            name,
        })
    }

    fn check(&self, host: &str, address: IpAddr, port: u16) -> Result<(), AddressRefused> {
        // An IPv4 address inside an IPv6 one reaches the same machine.
        let address = address.to_canonical();
        let refuse = |reason| Err(refusal(host, &address.to_string(), reason));
        let link_local = match address {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        if link_local {
            return refuse("link-local addresses hold cloud metadata services");
        }
        if METADATA_SERVICES.contains(&address) {
            return refuse("it is a cloud metadata service");
        }
        let unspecified = match address {
            // All of 0.0.0.0/8: Linux takes 0.0.0.0 for itself.
            IpAddr::V4(v4) => v4.octets()[0] == 0,
            IpAddr::V6(v6) => v6.is_unspecified(),
        };
        if unspecified {
            return refuse("the unspecified address means this machine");
        }
        if address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return refuse("not the address of one machine");
        }
        let listeners = self.listeners.lock();
        let own = listeners.iter().any(|listener| {
            let at = listener.ip().to_canonical();
            listener.port() == port && (at == address || (at.is_unspecified() && is_local(address)))
        });
        if own {
            return refuse("it is this server itself: a name of its own belongs into its public_hosts");
        }
        Ok(())
    }

    fn check_name(&self, name: &str, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, AddressRefused> {
        let ports = self
            .ports
            .lock()
            .get(&name.to_ascii_lowercase())
            .cloned()
            .ok_or_else(|| refusal(name, "unresolved", "the name was not admitted"))?;
        // One bad address condemns the name: an honest one has none.
        for address in &addresses {
            for port in ports.keys() {
                self.check(name, address.ip(), *port)?;
            }
        }
        Ok(addresses)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let Some((name, port)) = &self.name else {
            return;
        };
        let mut all = self.guard.ports.lock();
        let Some(ports) = all.get_mut(name) else {
            return;
        };
        if let Some(count) = ports.get_mut(port) {
            *count -= 1;
            if *count == 0 {
                ports.remove(port);
            }
        }
        if ports.is_empty() {
            all.remove(name);
        }
    }
}

/// A [`Guard`] as reqwest's resolver.
pub(crate) struct GuardedResolver(pub(crate) Arc<Guard>);

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = Arc::clone(&self.0);
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let checked = guard.check_name(name.as_str(), addresses)?;
            Ok(Box::new(checked.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is this machine's: only then can a socket be bound to it.
fn is_local(address: IpAddr) -> bool {
    address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}

fn refusal(host: &str, address: &str, reason: &'static str) -> AddressRefused {
    AddressRefused {
        host: host.to_owned(),
        address: address.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(guard: &Arc<Guard>, url: &str) -> bool {
        guard.admit(&url.parse().unwrap()).is_ok()
    }

    #[test]
    fn metadata_services_and_own_listeners_are_refused() {
        let guard = Guard::new(vec![
            "127.0.0.1:5000".parse().unwrap(),
            "0.0.0.0:5001".parse().unwrap(),
        ]);
        for refused in [
            "http://169.254.169.254/",
            "http://0xa9fea9fe/",
            "http://[fe80::1]/",
            "http://[::ffff:169.254.169.254]/",
            "http://0.0.0.0:5002/",
            "http://[::]/",
            "http://0.1.2.3/",
            "http://[fd00:ec2::254]/",
            "http://100.100.100.200/",
            "http://224.0.0.1/",
            "http://127.0.0.1:5000/",
            "http://[::ffff:127.0.0.1]:5000/",
            "http://127.0.0.1:5001/",
        ] {
            assert!(!admits(&guard, refused), "{refused}");
        }
        for admitted in [
            "http://127.0.0.1:5002/",
            "http://192.0.2.1:5001/",
            "https://10.0.0.1/",
        ] {
            assert!(admits(&guard, admitted), "{admitted}");
        }
    }

    #[test]
    fn a_name_is_judged_by_what_it_resolves_to() {
        let guard = Guard::new(vec!["127.0.0.1:5000".parse().unwrap()]);
        let loopback: Vec<SocketAddr> = vec!["127.0.0.1:0".parse().unwrap()];
        let checks =
            |name: &str, addresses: &[SocketAddr]| guard.check_name(name, addresses.to_vec()).is_ok();
        let admit = |url: &str| guard.admit(&url.parse().unwrap()).unwrap();
        assert!(!checks("evil.test", &loopback), "never admitted");
        let other_port = admit("http://evil.test:5002/");
        assert!(checks("evil.test", &loopback));
        let own_port = admit("http://EVIL.test:5000/");
        assert!(!checks("evil.test", &loopback));
        drop(own_port);
        assert!(
            checks("evil.test", &loopback),
            "a refusal doesn't outlive its request"
        );
        drop(other_port);
        assert!(!checks("evil.test", &loopback));
        let _admission = admit("https://rebind.test/");
        let mixed: Vec<SocketAddr> = vec![
            "93.184.216.34:0".parse().unwrap(),
            "169.254.169.254:0".parse().unwrap(),
        ];
        assert!(checks("rebind.test", &mixed[..1]));
        assert!(!checks("rebind.test", &mixed));
    }
}
