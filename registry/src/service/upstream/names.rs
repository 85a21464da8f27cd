//! Whose image a name means: this registry's, or one of an upstream.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use oci::ImageRef;

/// The names by which this server is called.
#[derive(Clone, Debug)]
pub(crate) struct OwnNames {
    listeners: Vec<SocketAddr>,
    /// Lower case, with a port unless it is the scheme's own.
    public: Vec<String>,
}

/// What a name means as far as its text tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// It carries this server's address.
    Own,
    /// It carries no host: this registry's if it has such an image, else Docker Hub's.
    Undecided,
    Upstream,
}

impl OwnNames {
    pub(crate) fn new(listeners: Vec<SocketAddr>, public: &[String]) -> Self {
        Self {
            listeners,
            public: public.iter().map(|host| host.to_ascii_lowercase()).collect(),
        }
    }

    /// The same with other listeners.
    pub(super) fn at(&self, listeners: &[SocketAddr]) -> Self {
        Self {
            listeners: listeners.to_vec(),
            public: self.public.clone(),
        }
    }

    pub(super) fn listeners(&self) -> &[SocketAddr] {
        &self.listeners
    }

    /// `called` is the host by which the asking user calls this server.
    pub(super) fn owner(&self, image: &ImageRef, called: Option<&str>) -> Owner {
        let Some(host) = image.registry.as_deref() else {
            return Owner::Undecided;
        };
        let host = host.to_ascii_lowercase();
        let named = called.is_some_and(|called| called.eq_ignore_ascii_case(&host));
        if named || self.public.contains(&host) || self.is_listener(&host) {
            return Owner::Own;
        }
        Owner::Upstream
    }

    fn is_listener(&self, host: &str) -> bool {
        let (name, port) = split_port(host);
        let addresses: Vec<IpAddr> = match name.trim_matches(['[', ']']).parse() {
            Ok(address) => vec![address],
            Err(_) if name == "localhost" => {
                vec![
                    IpAddr::from([127, 0, 0, 1]),
                    IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
                ]
            }
            Err(_) => return false,
        };
        self.listeners.iter().any(|listener| {
            let at = listener.ip().to_canonical();
            let is_here = |address: &IpAddr| {
                let address = address.to_canonical();
                at == address || (at.is_unspecified() && is_local(address))
            };
            listener.port() == port && addresses.iter().any(is_here)
        })
    }
}

/// A host without a port means the port of its scheme: 80 on loopback, where registries speak plain HTTP.
fn split_port(host: &str) -> (&str, u16) {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.ends_with(':') => match port.parse() {
            Ok(port) => (name, port),
            Err(_) => (host, 80),
        },
        _ => (host, 80),
    }
}

fn is_local(address: IpAddr) -> bool {
    address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_this_server_is_known() {
        let names = OwnNames::new(
            vec!["127.0.0.1:5000".parse().unwrap(), "[::1]:5000".parse().unwrap()],
            &["registry.example.com".to_owned()],
        );
        let owner = |text: &str| names.owner(&text.parse().unwrap(), Some("box.lan:5000"));
        for own in [
            "localhost:5000/a",
            "127.0.0.1:5000/a",
            "[::1]:5000/a",
            "registry.example.com/a",
            "Registry.Example.com/a",
            "box.lan:5000/a",
        ] {
            assert_eq!(owner(own), Owner::Own, "{own}");
        }
        for upstream in [
            "localhost:5001/a",
            "127.0.0.2:5000/a",
            "ghcr.io/a",
            "docker.io/library/debian",
        ] {
            assert_eq!(owner(upstream), Owner::Upstream, "{upstream}");
        }
        assert_eq!(owner("debian:12"), Owner::Undecided);
        let everywhere = OwnNames::new(vec!["0.0.0.0:5000".parse().unwrap()], &[]);
        assert_eq!(
            everywhere.owner(&"127.0.0.9:5000/a".parse().unwrap(), None),
            Owner::Own
        );
        assert_eq!(
            everywhere.owner(&"192.0.2.1:5000/a".parse().unwrap(), None),
            Owner::Upstream
        );
    }
}
