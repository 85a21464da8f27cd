//! What rules are made of: expressions that load something into a register, compare it, or decide.

use std::net::Ipv4Addr;

use crate::network::link::Prefix;
use crate::network::netlink::Message;
use crate::network::subnet;

/// IPv4, as a family of tables and as the protocol of a packet.
pub(super) const IPV4: u8 = 2;
const DNS_PORT: u16 = 53;

/// Type of a route to an address of this machine.
const RTN_LOCAL: u32 = 2;

const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const BASE_NETWORK: u32 = 1;
const BASE_TRANSPORT: u32 = 2;
const REGISTER: u32 = 1;
const REGISTER_VERDICT: u32 = 0;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;

#[derive(Clone, Copy, Debug)]
pub(super) enum Is {
    Equal = 0,
    NotEqual = 1,
}

/// A rule: all expressions in turn, until one doesn't match.
pub(super) type Rule = Vec<Expression>;

#[derive(Clone, Debug)]
pub(super) struct Expression {
    name: &'static str,
    attributes: Vec<Attribute>,
}

#[derive(Clone, Debug)]
enum Attribute {
    Number(u16, u32),
    Value(u16, Vec<u8>),
    Verdict(u16, u32),
}

impl Expression {
    fn new(name: &'static str, attributes: Vec<Attribute>) -> Self {
        Self { name, attributes }
    }

    /// Writes it as one element of a rule's list.
    pub(super) fn write(self, element: Message) -> Message {
        const NAME: u16 = 1;
        const DATA: u16 = 2;
        let write = |data: Message, attribute| match attribute {
            Attribute::Number(kind, value) => data.big_endian(kind, value),
            Attribute::Value(kind, value) => data.nested(kind, |data| data.attribute(1, &value)),
            Attribute::Verdict(kind, code) => {
                data.nested(kind, |data| data.nested(2, |verdict| verdict.big_endian(1, code)))
            }
        };
        let attributes = self.attributes.into_iter();
        element
            .text(NAME, self.name)
            .nested(DATA, |data| attributes.fold(data, write))
    }
}

/// The packet came in by, or doesn't.
pub(super) fn input(is: Is, interface: &str) -> Rule {
    vec![meta(META_IIFNAME), compare(is, &name(interface))]
}

/// The packet goes out by, or doesn't.
pub(super) fn output(is: Is, interface: &str) -> Rule {
    vec![meta(META_OIFNAME), compare(is, &name(interface))]
}

pub(super) fn ipv4(is: Is) -> Rule {
    vec![meta(META_NFPROTO), compare(is, &[IPV4])]
}

pub(super) fn from(network: Prefix) -> Rule {
    const SOURCE_OFFSET: u32 = 12;
    within(SOURCE_OFFSET, network)
}

pub(super) fn to(network: Prefix) -> Rule {
    const DESTINATION_OFFSET: u32 = 16;
    within(DESTINATION_OFFSET, network)
}

/// Port 53 of each server, by UDP and TCP: one rule each, without its verdict.
pub(super) fn to_name_servers(servers: &[Ipv4Addr]) -> Vec<Rule> {
    const PORT_OFFSET: u32 = 2;
    let one = |server: &Ipv4Addr, protocol: i32| {
        let protocol = vec![meta(META_L4PROTO), compare(Is::Equal, &[protocol as u8])];
        let port = vec![
            payload(BASE_TRANSPORT, PORT_OFFSET, 2),
            compare(Is::Equal, &DNS_PORT.to_be_bytes()),
        ];
        [to((*server, 32)), protocol, port].concat()
    };
    let both = |server| [libc::IPPROTO_UDP, libc::IPPROTO_TCP].map(|protocol| one(server, protocol));
    servers.iter().flat_map(both).collect()
}

/// The destination is an address of this machine.
pub(super) fn to_this_machine() -> Rule {
    const RESULT_ADDRESS_TYPE: u32 = 3;
    const BY_DESTINATION: u32 = 2;
    let look_up = vec![
        Attribute::Number(1, REGISTER),
        Attribute::Number(2, RESULT_ADDRESS_TYPE),
        Attribute::Number(3, BY_DESTINATION),
    ];
    vec![
        Expression::new("fib", look_up),
        compare(Is::Equal, &RTN_LOCAL.to_ne_bytes()),
    ]
}

/// The packet belongs to a connection that exists, or is about one.
pub(super) fn answer() -> Rule {
    const KEY_STATE: u32 = 0;
    const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
    let state = vec![Attribute::Number(1, REGISTER), Attribute::Number(2, KEY_STATE)];
    let some_bit = compare(Is::NotEqual, &[0; 4]);
    vec![
        Expression::new("ct", state),
        mask(ESTABLISHED_OR_RELATED.to_ne_bytes()),
        some_bit,
    ]
}

pub(super) fn accept() -> Rule {
    vec![verdict(ACCEPT)]
}

pub(super) fn drop() -> Rule {
    vec![verdict(DROP)]
}

pub(super) fn masquerade() -> Rule {
    vec![Expression::new("masq", Vec::new())]
}

pub(super) fn count() -> Rule {
    vec![Expression::new("counter", Vec::new())]
}

fn meta(key: u32) -> Expression {
    Expression::new(
        "meta",
        vec![Attribute::Number(1, REGISTER), Attribute::Number(2, key)],
    )
}

fn compare(is: Is, value: &[u8]) -> Expression {
    let operator = Attribute::Number(2, is as u32);
    Expression::new(
        "cmp",
        vec![
            Attribute::Number(1, REGISTER),
            operator,
            Attribute::Value(3, value.to_vec()),
        ],
    )
}

fn verdict(code: u32) -> Expression {
    let register = Attribute::Number(1, REGISTER_VERDICT);
    Expression::new("immediate", vec![register, Attribute::Verdict(2, code)])
}

fn payload(base: u32, offset: u32, length: u32) -> Expression {
    let numbers = [(1, REGISTER), (2, base), (3, offset), (4, length)];
    Expression::new(
        "payload",
        numbers
            .map(|(kind, value)| Attribute::Number(kind, value))
            .to_vec(),
    )
}

/// Keeps these bits of the register.
fn mask(bits: [u8; 4]) -> Expression {
    let attributes = vec![
        Attribute::Number(1, REGISTER),
        Attribute::Number(2, REGISTER),
        Attribute::Number(3, 4),
        Attribute::Value(4, bits.to_vec()),
        Attribute::Value(5, vec![0; 4]),
    ];
    Expression::new("bitwise", attributes)
}

/// The address at `offset` of an IPv4 header is in the network.
fn within(offset: u32, (network, length): Prefix) -> Rule {
    let bits = subnet::mask(length);
    let wanted = u32::from(network) & bits;
    let address = vec![
        payload(BASE_NETWORK, offset, 4),
        mask(bits.to_be_bytes()),
        compare(Is::Equal, &wanted.to_be_bytes()),
    ];
    [ipv4(Is::Equal), address].concat()
}

/// An interface's name as the kernel compares it.
fn name(interface: &str) -> Vec<u8> {
    [interface.as_bytes(), b"\0"].concat()
}
