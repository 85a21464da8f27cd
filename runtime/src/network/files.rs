//! resolv.conf, hosts and hostname of steps.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use crate::spec::Mount;

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The servers behind systemd's local stub.
const RESOLVED_CONF: &str = "/run/systemd/resolve/resolv.conf";

/// Used if the machine's own servers can't be reached from a step: Docker's choice.
const FALLBACK: [Ipv4Addr; 2] = [Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(8, 8, 4, 4)];

/// How names are resolved in steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    pub name_servers: Vec<Ipv4Addr>,
    /// Lines of the machine's file other than servers: search domains and options.
    pub others: Vec<String>,
}

impl Resolver {
    /// As this machine resolves, without what a step can't reach: loopback and IPv6 servers.
    pub fn of_this_machine() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self::from_texts(&read(RESOLV_CONF), &read(RESOLVED_CONF))
    }

    fn from_texts(own: &str, resolved: &str) -> Self {
        let own = Self::parse(own);
        let chosen = if own.name_servers.is_empty() {
            Self::parse(resolved)
        } else {
            own
        };
        if !chosen.name_servers.is_empty() {
            return chosen;
        }
        tracing::warn!(servers = ?FALLBACK, "this machine has no name server that a step can reach");
        Self {
            name_servers: FALLBACK.to_vec(),
            others: chosen.others,
        }
    }

    fn parse(text: &str) -> Self {
        let mut resolver = Self {
            name_servers: Vec::new(),
            others: Vec::new(),
        };
        for line in text
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with(['#', ';']))
        {
            let mut words = line.split_ascii_whitespace();
            match (words.next(), words.next()) {
                (Some("nameserver"), Some(server)) => match server.parse() {
                    Ok(IpAddr::V4(server)) if !server.is_loopback() && !server.is_unspecified() => {
                        resolver.name_servers.push(server);
                    }
                    _ => {}
                },
                (Some("search" | "domain" | "options"), Some(_)) => resolver.others.push(line.to_owned()),
                _ => {}
            }
        }
        resolver
    }

    fn text(&self) -> String {
        let servers = self
            .name_servers
            .iter()
            .map(|server| format!("nameserver {server}\n"));
        let others = self.others.iter().map(|line| format!("{line}\n"));
        servers.chain(others).collect()
    }
}

/// The three files, in a directory of the worker.
#[derive(Clone, Debug)]
pub struct Files {
    directory: PathBuf,
}

const NAMES: [&str; 3] = ["resolv.conf", "hosts", "hostname"];

impl Files {
    /// Writes them. Nothing in hosts and hostname depends on the machine, because commands copy them.
    pub fn write(directory: &Path, resolver: &Resolver, hostname: &str) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let hosts = format!(
            "127.0.0.1\tlocalhost\n127.0.1.1\t{hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
        );
        let texts = [resolver.text(), hosts, format!("{hostname}\n")];
        for (name, text) in NAMES.into_iter().zip(texts) {
            let path = directory.join(name);
            fs::write(&path, text)?;
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        }
        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    /// For a step, over the image's files. Read-only: they are shared by all steps of the worker.
    pub fn mounts(&self) -> Vec<Mount> {
        let mount = |name: &str| Mount::bind(self.directory.join(name), format!("/etc/{name}"), true);
        NAMES.map(mount).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(own: &str, resolved: &str) -> Vec<String> {
        Resolver::from_texts(own, resolved)
            .name_servers
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn unreachable_servers_are_left_out() {
        let own =
            "# note\nnameserver 127.0.0.1\nnameserver 10.0.0.2 # x\nnameserver fe80::1%eth0\noptions edns0\n";
        let resolver = Resolver::from_texts(own, "nameserver 9.9.9.9");
        assert_eq!(resolver.text(), "nameserver 10.0.0.2\noptions edns0\n");
    }

    #[test]
    fn a_local_stub_is_replaced_by_what_is_behind_it() {
        let stub = "nameserver 127.0.0.53\nsearch lan\n";
        assert_eq!(servers(stub, "nameserver 192.168.1.1\n"), ["192.168.1.1"]);
        assert_eq!(servers(stub, ""), ["8.8.8.8", "8.8.4.4"]);
    }
}
