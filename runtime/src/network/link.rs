//! Links, addresses and routes: the messages of rtnetlink this crate needs.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::netlink::{self, CREATE, EXCLUSIVE, Message, REPLACE, Socket};

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const NEWADDR: u16 = 20;
const GETADDR: u16 = 22;
const NEWROUTE: u16 = 24;
const GETROUTE: u16 = 26;
const SETLINK: u16 = 19;
const NEWNEIGH: u16 = 28;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IFLA_BRPORT_LEARNING: u16 = 8;
const IFLA_BRPORT_UNICAST_FLOOD: u16 = 9;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const ADDR_GEN_MODE_NONE: u8 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

const UP: u32 = 1;
/// Index of the loopback device in every new namespace.
pub(crate) const LOOPBACK: i32 = 1;
const ROUTE_HEADER_BYTES: usize = 12;
const ADDRESS_HEADER_BYTES: usize = 8;
const LINK_HEADER_BYTES: usize = 16;

/// An IPv4 network: address and length of the prefix.
pub type Prefix = (Ipv4Addr, u8);

/// An Ethernet address.
pub(crate) type Mac = [u8; 6];

/// Raises `lo` of the calling thread's network namespace.
pub(crate) fn raise_loopback() -> io::Result<()> {
    raise(&mut Socket::route()?, LOOPBACK)
}

pub(crate) fn raise(socket: &mut Socket, index: i32) -> io::Result<()> {
    socket.request(Message::new(NEWLINK, 0, &link_header(libc::AF_UNSPEC, index, UP)))
}

pub(crate) fn create_bridge(socket: &mut Socket, name: &str, mac: Mac, mtu: u32) -> io::Result<()> {
    let message = Message::new(NEWLINK, CREATE | EXCLUSIVE, &link_header(libc::AF_UNSPEC, 0, 0))
        .text(IFLA_IFNAME, name)
        .attribute(IFLA_ADDRESS, &mac)
        .attribute(IFLA_MTU, &mtu.to_ne_bytes())
        .nested(IFLA_LINKINFO, |info| info.text(IFLA_INFO_KIND, "bridge"));
    socket.request(message)
}

/// One end `name` here, down, on the bridge `master`; the other end `peer` is born in `namespace`.
pub(crate) struct Veth<'a> {
    pub(crate) name: &'a str,
    pub(crate) master: i32,
    pub(crate) peer: &'a str,
    pub(crate) peer_mac: Mac,
    pub(crate) mtu: u32,
    pub(crate) namespace: BorrowedFd<'a>,
}

pub(crate) fn create_veth(socket: &mut Socket, veth: &Veth<'_>) -> io::Result<()> {
    let peer = |data: Message| {
        data.nested(VETH_INFO_PEER, |peer| {
            peer.raw(&link_header(libc::AF_UNSPEC, 0, 0))
                .text(IFLA_IFNAME, veth.peer)
                .attribute(IFLA_ADDRESS, &veth.peer_mac)
                .attribute(IFLA_MTU, &veth.mtu.to_ne_bytes())
                .attribute(IFLA_NET_NS_FD, &veth.namespace.as_raw_fd().to_ne_bytes())
        })
    };
    let message = Message::new(NEWLINK, CREATE | EXCLUSIVE, &link_header(libc::AF_UNSPEC, 0, 0))
        .text(IFLA_IFNAME, veth.name)
        .attribute(IFLA_MTU, &veth.mtu.to_ne_bytes())
        .attribute(IFLA_MASTER, &veth.master.to_ne_bytes())
        .nested(IFLA_LINKINFO, |info| {
            info.text(IFLA_INFO_KIND, "veth").nested(IFLA_INFO_DATA, peer)
        });
    socket.request(message)
}

/// Keeps a port from exchanging frames with other such ports of its bridge, and the bridge from believing what a
/// step says about whose addresses are where.
pub(crate) fn isolate_port(socket: &mut Socket, index: i32) -> io::Result<()> {
    let message =
        Message::new(SETLINK, 0, &link_header(libc::AF_BRIDGE, index, 0)).nested(IFLA_PROTINFO, |port| {
            port.attribute(IFLA_BRPORT_LEARNING, &[0])
                .attribute(IFLA_BRPORT_UNICAST_FLOOD, &[0])
                .attribute(IFLA_BRPORT_ISOLATED, &[1])
        });
    socket.request(message)
}

/// Tells the machine once and for all where an address of the bridge's network is: behind `port`, at `mac`.
pub(crate) fn add_neighbour(
    socket: &mut Socket,
    bridge: i32,
    port: i32,
    address: Ipv4Addr,
    mac: Mac,
) -> io::Result<()> {
    const STATE_PERMANENT: u16 = 0x80;
    /// An entry of a bridge that is neither learned nor ages.
    const STATE_STATIC: u16 = 0x40;
    const FLAG_MASTER: u8 = 4;
    const LINK_ADDRESS: u16 = 2;
    const ADDRESS: u16 = 1;
    let header = |family: i32, index: i32, state: u16, flags: u8| {
        let [i0, i1, i2, i3] = index.to_ne_bytes();
        let [s0, s1] = state.to_ne_bytes();
        [family as u8, 0, 0, 0, i0, i1, i2, i3, s0, s1, flags, 0]
    };
    let forwarding = header(libc::AF_BRIDGE, port, STATE_STATIC, FLAG_MASTER);
    socket.request(Message::new(NEWNEIGH, CREATE | REPLACE, &forwarding).attribute(LINK_ADDRESS, &mac))?;
    let neighbour = header(libc::AF_INET, bridge, STATE_PERMANENT, 0);
    let message = Message::new(NEWNEIGH, CREATE | REPLACE, &neighbour)
        .attribute(ADDRESS, &address.octets())
        .attribute(LINK_ADDRESS, &mac);
    socket.request(message)
}

/// Keeps a link that is still down from making itself a link-local address: a way around rules for IPv4. The
/// kernel ignores this in the message that makes a link.
pub(crate) fn disable_ipv6_address(socket: &mut Socket, index: i32) -> io::Result<()> {
    let mode = |v6: Message| v6.attribute(IFLA_INET6_ADDR_GEN_MODE, &[ADDR_GEN_MODE_NONE]);
    let message = Message::new(NEWLINK, 0, &link_header(libc::AF_UNSPEC, index, 0))
        .nested(IFLA_AF_SPEC, |families| {
            families.nested(libc::AF_INET6 as u16, mode)
        });
    match socket.request(message) {
        // A kernel without IPv6.
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(()),
        result => result,
    }
}

/// Removes a link. True: it existed.
pub(crate) fn delete(socket: &mut Socket, name: &str) -> io::Result<bool> {
    let message = Message::new(DELLINK, 0, &link_header(libc::AF_UNSPEC, 0, 0)).text(IFLA_IFNAME, name);
    match socket.request(message) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
        result => result.map(|()| true),
    }
}

pub(crate) fn add_address(socket: &mut Socket, index: i32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    let mut header = vec![libc::AF_INET as u8, prefix, 0, 0];
    header.extend_from_slice(&index.to_ne_bytes());
    let message = Message::new(NEWADDR, CREATE | EXCLUSIVE, &header)
        .attribute(IFA_LOCAL, &address.octets())
        .attribute(IFA_ADDRESS, &address.octets());
    socket.request(message)
}

pub(crate) fn add_default_route(socket: &mut Socket, index: i32, gateway: Ipv4Addr) -> io::Result<()> {
    const TABLE_MAIN: u8 = 254;
    const PROTOCOL_BOOT: u8 = 3;
    const TYPE_UNICAST: u8 = 1;
    let header = [
        libc::AF_INET as u8,
        0,
        0,
        0,
        TABLE_MAIN,
        PROTOCOL_BOOT,
        0,
        TYPE_UNICAST,
        0,
        0,
        0,
        0,
    ];
    let message = Message::new(NEWROUTE, CREATE | EXCLUSIVE, &header)
        .attribute(RTA_GATEWAY, &gateway.octets())
        .attribute(RTA_OIF, &index.to_ne_bytes());
    socket.request(message)
}

/// A link as listed by the kernel.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) index: i32,
    pub(crate) name: String,
    pub(crate) mtu: u32,
}

pub(crate) fn links(socket: &mut Socket) -> io::Result<Vec<Link>> {
    let listed = socket.dump(Message::new(GETLINK, 0, &link_header(libc::AF_UNSPEC, 0, 0)))?;
    Ok(listed
        .iter()
        .filter(|(kind, _)| *kind == NEWLINK)
        .filter_map(|(_, body)| parse_link(body))
        .collect())
}

fn parse_link(body: &[u8]) -> Option<Link> {
    let index = i32::from_ne_bytes(*body.get(4..8)?.first_chunk()?);
    let mut link = Link {
        index,
        name: String::new(),
        mtu: 0,
    };
    for (kind, value) in netlink::attributes(body.get(LINK_HEADER_BYTES..)?) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = u32::from_ne_bytes(*value.first_chunk()?),
            _ => {}
        }
    }
    Some(link)
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}

/// Index of a link of the socket's namespace.
pub(crate) fn index_of(socket: &mut Socket, name: &str) -> io::Result<i32> {
    let found = links(socket)?.into_iter().find(|link| link.name == name);
    found
        .map(|link| link.index)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
}

/// Packet size of the link the default route leaves by.
pub(crate) fn default_route_mtu(socket: &mut Socket) -> io::Result<Option<u32>> {
    let mut header = [0; ROUTE_HEADER_BYTES];
    header[0] = libc::AF_INET as u8;
    let routes = socket.dump(Message::new(GETROUTE, 0, &header))?;
    let default = routes
        .iter()
        .filter(|(_, body)| body.get(1) == Some(&0))
        .find_map(|(_, body)| {
            let attributes = netlink::attributes(body.get(ROUTE_HEADER_BYTES..)?);
            let (_, index) = attributes.into_iter().find(|(kind, _)| *kind == RTA_OIF)?;
            Some(i32::from_ne_bytes(*index.first_chunk()?))
        });
    Ok(links(socket)?
        .into_iter()
        .find(|link| Some(link.index) == default)
        .map(|link| link.mtu))
}

/// Networks this machine has addresses in or routes to, without the default route.
pub(crate) fn used_prefixes(socket: &mut Socket) -> io::Result<Vec<Prefix>> {
    let mut header = [0; ROUTE_HEADER_BYTES];
    header[0] = libc::AF_INET as u8;
    let routes = socket.dump(Message::new(GETROUTE, 0, &header))?;
    let mut header = [0; ADDRESS_HEADER_BYTES];
    header[0] = libc::AF_INET as u8;
    let addresses = socket.dump(Message::new(GETADDR, 0, &header))?;
    let routes = routes
        .iter()
        .filter_map(|(_, body)| prefix(body, ROUTE_HEADER_BYTES, RTA_DST));
    let addresses = addresses
        .iter()
        .filter_map(|(_, body)| prefix(body, ADDRESS_HEADER_BYTES, IFA_ADDRESS));
    Ok(routes
        .chain(addresses)
        .filter(|(_, length)| *length > 0)
        .collect())
}

fn prefix(body: &[u8], header_bytes: usize, destination: u16) -> Option<Prefix> {
    let length = *body.get(1)?;
    let found = netlink::attributes(body.get(header_bytes..)?)
        .into_iter()
        .find(|(kind, _)| *kind == destination)?;
    Some((Ipv4Addr::from(*found.1.first_chunk::<4>()?), length))
}

fn link_header(family: i32, index: i32, flags: u32) -> [u8; LINK_HEADER_BYTES] {
    let mut header = [0; LINK_HEADER_BYTES];
    header[0] = family as u8;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}
