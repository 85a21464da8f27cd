//! The worker's bridge: device, address, rules; made at the start, removed at the end.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::claim::Claim;
use super::forward::Forwarding;
use super::link::{self, Prefix, Veth};
use super::netlink::Socket;
use super::nft::{self, Rules};
use super::pool::{Place, Pool, PoolConfig};
use super::subnet::{self, SUBNET_LENGTH};
use super::{During, NetworkError, Resolver};

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
/// Of bridges' names.
const PREFIX: &str = "ly-";
const DEFAULT_MTU: u32 = 1500;

/// Addresses that clouds and machines talk to themselves with.
const LINK_LOCAL: Prefix = (Ipv4Addr::new(169, 254, 0, 0), 16);

#[derive(Clone, Debug)]
pub struct BridgeConfig {
    /// Names this worker on this machine, across its restarts: a data directory's path, say. Two workers that
    /// run must not share one.
    pub id: String,
    pub resolver: Resolver,
    /// Networks steps must not reach, such as this server's address as the world sees it.
    pub denied: Vec<Prefix>,
}

/// A running bridge. Removed when dropped.
#[derive(Debug)]
pub struct Bridge {
    name: String,
    index: i32,
    subnet: Prefix,
    _claim: Claim,
    /// None only while dropping: its thread has to end before the device is removed.
    pool: Option<Pool>,
}

impl Bridge {
    /// Makes the bridge, in place of what a dead worker with the same id left; and removes bridges of other
    /// workers that are dead.
    pub fn start(config: &BridgeConfig) -> Result<Arc<Self>, NetworkError> {
        let mut socket = Socket::route().during("open a netlink socket")?;
        let mut netfilter = Socket::netfilter().during("open a netfilter socket")?;
        let tag = fnv1a(config.id.as_bytes());
        let name = format!("{PREFIX}{tag:08x}");
        let veth_prefix = format!("lv{tag:08x}");
        let claim = Claim::take(&name)?;
        clean_up(&mut socket, &mut netfilter, &name, &veth_prefix)?;

        let (subnet, index, mtu) = create(&mut socket, &name, tag)?;
        // From here on dropping `bridge` removes what was made.
        let mut bridge = Self {
            name,
            index,
            subnet,
            _claim: claim,
            pool: None,
        };
        let mut denied = vec![LINK_LOCAL];
        denied.extend_from_slice(&config.denied);
        let name_servers = &config.resolver.name_servers;
        let rules = Rules {
            bridge: &bridge.name,
            subnet,
            name_servers,
            denied: &denied,
        };
        nft::install(&mut netfilter, &rules).during("install the nf_tables rules")?;
        // Only now: no packet passes before the rules are there.
        link::raise(&mut socket, index).during("raise the bridge")?;
        enable_forwarding()?;
        let pool = PoolConfig {
            bridge: bridge.name.clone(),
            bridge_index: index,
            veth_prefix,
            subnet,
            mtu,
        };
        bridge.pool = Some(Pool::start(pool)?);
        Ok(Arc::new(bridge))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The machine's own address on the bridge.
    pub fn gateway(&self) -> Ipv4Addr {
        subnet::gateway(self.subnet)
    }

    pub(super) fn take(&self) -> Result<Place, NetworkError> {
        self.pool.as_ref().ok_or(NetworkError::ThreadGone)?.take()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        drop(self.pool.take());
        let removed = Socket::route()
            .during("open a netlink socket")
            .and_then(|mut socket| {
                if link::index_of(&mut socket, &self.name).ok() != Some(self.index) {
                    // A later one with the same id has replaced it, after our zygote died perhaps.
                    return Ok(());
                }
                let mut netfilter = Socket::netfilter().during("open a netfilter socket")?;
                remove(&mut socket, &mut netfilter, &self.name)
            });
        if let Err(error) = removed {
            tracing::warn!(%error, bridge = self.name, "could not remove the bridge; the next start will");
        }
    }
}

/// Finds a free network and makes the device with an address in it, still down.
fn create(socket: &mut Socket, name: &str, seed: u32) -> Result<(Prefix, i32, u32), NetworkError> {
    let used = link::used_prefixes(socket).during("list networks")?;
    let mtu = link::default_route_mtu(socket)
        .during("find the default route")?
        .unwrap_or(DEFAULT_MTU);
    for subnet in subnet::free_subnets(&used, seed) {
        let gateway = subnet::gateway(subnet);
        link::create_bridge(socket, name, subnet::mac(gateway), mtu).during("make a bridge")?;
        let index = link::index_of(socket, name).during("find the bridge")?;
        link::disable_ipv6_address(socket, index).during("set up the bridge")?;
        link::add_address(socket, index, gateway, subnet.1).during("give the bridge its address")?;
        // Another worker may have looked at the same moment.
        let now_used = link::used_prefixes(socket).during("list networks")?;
        if now_used
            .iter()
            .filter(|used| subnet::overlap(subnet, **used))
            .count()
            <= OWN_ENTRIES
        {
            return Ok((subnet, index, mtu));
        }
        link::delete(socket, name).during("remove a bridge")?;
    }
    Err(NetworkError::NoFreeSubnet)
}

/// What a bridge that is down adds to the lists: its address, and the local route to it.
const OWN_ENTRIES: usize = 2;

/// Removes what dead workers left: our predecessor's, of which nobody else can be the owner, and others'.
fn clean_up(
    socket: &mut Socket,
    netfilter: &mut Socket,
    name: &str,
    veth_prefix: &str,
) -> Result<(), NetworkError> {
    for stale in link::links(socket).during("list links")? {
        if stale.name.starts_with(veth_prefix) {
            link::delete(socket, &stale.name).during("remove a stale link")?;
        } else if stale.name.starts_with(PREFIX)
            && stale.name != name
            && let Some(_claim) = Claim::try_take(&stale.name).during("claim a stale bridge")?
        {
            tracing::info!(
                bridge = stale.name,
                "removing the bridge of a worker that is dead"
            );
            remove(socket, netfilter, &stale.name)?;
        }
    }
    remove(socket, netfilter, name)
}

/// The device last: what is left by a process that dies meanwhile is found by it.
fn remove(socket: &mut Socket, netfilter: &mut Socket, name: &str) -> Result<(), NetworkError> {
    nft::remove(netfilter, name).during("remove the nf_tables rules")?;
    Forwarding::new(name)
        .remove()
        .during("remove the firewall's rules")?;
    link::delete(socket, name).during("remove the bridge")?;
    Ok(())
}

/// Lets the machine route. Never undone: others may rely on it by then.
fn enable_forwarding() -> Result<(), NetworkError> {
    let current = fs::read_to_string(IP_FORWARD).during("read net.ipv4.ip_forward")?;
    if current.trim() == "1" {
        return Ok(());
    }
    fs::write(IP_FORWARD, "1").during("set net.ipv4.ip_forward")
}

/// Tries what [`Bridge::start`] does, in the calling thread's network namespace, which has to be a new one.
pub(crate) fn try_bridge() -> io::Result<()> {
    let (mut socket, mut netfilter) = (Socket::route()?, Socket::netfilter()?);
    let subnet = (Ipv4Addr::new(192, 0, 2, 0), SUBNET_LENGTH);
    link::create_bridge(
        &mut socket,
        "ly-probe",
        subnet::mac(subnet::gateway(subnet)),
        DEFAULT_MTU,
    )?;
    let master = link::index_of(&mut socket, "ly-probe")?;
    let namespace = fs::File::open("/proc/thread-self/ns/net")?;
    let mac = subnet::mac(subnet.0);
    let mtu = DEFAULT_MTU;
    let veth = Veth {
        name: "lv-probe",
        master,
        peer: "peer",
        peer_mac: mac,
        mtu,
        namespace: namespace.as_fd(),
    };
    link::create_veth(&mut socket, &veth)?;
    let port = link::index_of(&mut socket, "lv-probe")?;
    link::isolate_port(&mut socket, port)?;
    nft::install(
        &mut netfilter,
        &Rules {
            bridge: "ly-probe",
            subnet,
            name_servers: &[],
            denied: &[],
        },
    )
}

/// Whether packets are forwarded, or can be made to.
pub(crate) fn may_forward() -> io::Result<()> {
    match fs::read_to_string(IP_FORWARD)?.trim() {
        "1" => Ok(()),
        _ => fs::File::options().write(true).open(IP_FORWARD).map(drop),
    }
}

/// A hash that is the same in every version of this program.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable() {
        assert_eq!(fnv1a(b""), 0x811c_9dc5);
        assert_eq!(fnv1a(b"foobar"), 0xbf9c_f968);
    }
}
