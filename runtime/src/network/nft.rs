//! Packet rules by nf_tables: one table of our own, made and removed as a whole.
//!
//! ```text
//! table inet BRIDGE {
//!   chain prerouting  { filter, before everything }   step → machine: name servers, nothing else
//!   chain input       { filter }                       the same, without needing the fib expression
//!   chain forward     { filter }                       step → step: nothing; world → step: answers only
//!   chain postrouting { nat }                          step → world: from our address
//! }
//! ```

use std::io;
use std::net::Ipv4Addr;

use super::link::Prefix;
use super::netlink::{self, APPEND, CREATE, Message, Socket};

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEWTABLE: u16 = SUBSYSTEM;
const DELTABLE: u16 = SUBSYSTEM | 2;
const NEWCHAIN: u16 = SUBSYSTEM | 3;
const NEWRULE: u16 = SUBSYSTEM | 6;
const GETRULE: u16 = SUBSYSTEM | 7;
const DELRULE: u16 = SUBSYSTEM | 8;

/// Families of tables.
pub(super) const INET: u8 = 1;
pub(super) const IPV4: u8 = 2;

const HOOK_PREROUTING: u32 = 0;
const HOOK_INPUT: u32 = 1;
const HOOK_FORWARD: u32 = 2;
const HOOK_POSTROUTING: u32 = 4;
/// Before connection tracking and before any port of the machine is redirected.
const PRIORITY_RAW: i32 = -300;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SOURCE_NAT: i32 = 100;

const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const DNS_PORT: u16 = 53;
const REGISTER: u32 = 1;
const REGISTER_VERDICT: u32 = 0;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;

/// What the table says.
pub(super) struct Rules<'a> {
    pub(super) bridge: &'a str,
    pub(super) subnet: Prefix,
    /// Reachable on port 53, wherever they are.
    pub(super) name_servers: &'a [Ipv4Addr],
    /// Reachable by nobody: link-local metadata services, and what the caller adds.
    pub(super) denied: &'a [Prefix],
}

/// Makes the table, in place of what an earlier process left under its name.
pub(super) fn install(socket: &mut Socket, rules: &Rules<'_>) -> io::Result<()> {
    let table = rules.bridge;
    let elsewhere = || vec![meta(META_IIFNAME), cmp(NOT_EQUAL, &name(rules.bridge)), verdict(ACCEPT)];
    let mut messages = vec![new_table(table), delete_table(table), new_table(table)];

    messages.push(chain(table, "prerouting", "filter", HOOK_PREROUTING, PRIORITY_RAW));
    let mut add = |chain: &str, expressions: Vec<Expression>| messages.push(rule(INET, table, chain, expressions));
    add("prerouting", elsewhere());
    // Steps have IPv4 only; what else they send is an attempt.
    add("prerouting", vec![meta(META_NFPROTO), cmp(NOT_EQUAL, &[IPV4]), verdict(DROP)]);
    for expressions in name_server_rules(rules.name_servers) {
        add("prerouting", expressions);
    }
    for (network, length) in rules.denied {
        add("prerouting", [ipv4(), destination(*network, *length), vec![verdict(DROP)]].concat());
    }
    add("prerouting", vec![destination_type(), cmp(EQUAL, &LOCAL.to_ne_bytes()), verdict(DROP)]);

    messages.push(chain(table, "input", "filter", HOOK_INPUT, PRIORITY_FILTER));
    let mut add = |chain: &str, expressions: Vec<Expression>| messages.push(rule(INET, table, chain, expressions));
    add("input", elsewhere());
    for expressions in name_server_rules(rules.name_servers) {
        add("input", expressions);
    }
    add("input", vec![verdict(DROP)]);

    messages.push(chain(table, "forward", "filter", HOOK_FORWARD, PRIORITY_FILTER));
    let mut add = |chain: &str, expressions: Vec<Expression>| messages.push(rule(INET, table, chain, expressions));
    let to_steps = || vec![meta(META_OIFNAME), cmp(EQUAL, &name(rules.bridge))];
    let from_steps = vec![meta(META_IIFNAME), cmp(EQUAL, &name(rules.bridge))];
    add("forward", [to_steps(), from_steps, vec![verdict(DROP)]].concat());
    add("forward", [to_steps(), answers(), vec![verdict(ACCEPT)]].concat());
    add("forward", [to_steps(), vec![verdict(DROP)]].concat());

    messages.push(chain(table, "postrouting", "nat", HOOK_POSTROUTING, PRIORITY_SOURCE_NAT));
    let outward = vec![meta(META_OIFNAME), cmp(NOT_EQUAL, &name(rules.bridge)), Expression::new("masq", vec![])];
    let from_subnet = [ipv4(), source(rules.subnet.0, rules.subnet.1)].concat();
    messages.push(rule(INET, table, "postrouting", [from_subnet, outward].concat()));
    transact(socket, messages)
}

/// Removes the table, if there is one.
pub(super) fn remove(socket: &mut Socket, table: &str) -> io::Result<()> {
    transact(socket, vec![new_table(table), delete_table(table)])
}

/// A rule of a table that isn't ours, known by its comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ForeignRule {
    handle: u64,
}

/// The rules with `comment` in the iptables chain FORWARD. None: iptables has no such chain (in its nf_tables form).
pub(super) fn find_forward_rules(socket: &mut Socket, comment: &str) -> io::Result<Option<Vec<ForeignRule>>> {
    const NFTA_RULE_HANDLE: u16 = 3;
    const NFTA_RULE_USERDATA: u16 = 7;
    let list = Message::new(GETRULE, 0, &family(IPV4)).text(1, "filter").text(2, "FORWARD");
    let rules = match socket.dump(list) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        rules => rules?,
    };
    let wanted = userdata(comment);
    let ours = rules.iter().filter_map(|(_, body)| {
        let attributes = netlink::attributes(body.get(4..)?);
        let value = |kind: u16| attributes.iter().find(|(found, _)| *found == kind).map(|(_, value)| *value);
        let handle = u64::from_be_bytes(*value(NFTA_RULE_HANDLE)?.first_chunk()?);
        (value(NFTA_RULE_USERDATA)? == wanted).then_some(ForeignRule { handle })
    });
    let ours = ours.collect();
    Ok(forward_chain_exists(socket)?.then_some(ours))
}

fn forward_chain_exists(socket: &mut Socket) -> io::Result<bool> {
    const GETCHAIN: u16 = SUBSYSTEM | 4;
    let chains = socket.dump(Message::new(GETCHAIN, 0, &family(IPV4)))?;
    Ok(chains.iter().any(|(_, body)| {
        let attributes = netlink::attributes(body.get(4..).unwrap_or_default());
        let is = |kind: u16, text: &[u8]| attributes.iter().any(|(found, value)| *found == kind && *value == text);
        is(1, b"filter\0") && is(3, b"FORWARD\0")
    }))
}

/// Puts rules before all others of iptables' FORWARD that let the bridge's packets pass: with Docker its policy
/// is to drop, and no verdict of our own table overrules that.
///
/// Only expressions that iptables itself uses: it refuses to list a table with others. That only answers come
/// back in is the business of our own table.
pub(super) fn insert_forward_rules(socket: &mut Socket, bridge: &str, comment: &str) -> io::Result<()> {
    let messages = [META_IIFNAME, META_OIFNAME].map(|direction| {
        let expressions =
            vec![meta(direction), cmp(EQUAL, &name(bridge)), Expression::new("counter", vec![]), verdict(ACCEPT)];
        rule_message(IPV4, CREATE, "filter", "FORWARD", expressions).attribute(7, &userdata(comment))
    });
    transact(socket, messages.to_vec())
}

pub(super) fn delete_forward_rules(socket: &mut Socket, rules: &[ForeignRule]) -> io::Result<()> {
    let delete = |rule: &ForeignRule| {
        Message::new(DELRULE, 0, &family(IPV4))
            .text(1, "filter")
            .text(2, "FORWARD")
            .attribute(3, &rule.handle.to_be_bytes())
    };
    transact(socket, rules.iter().map(delete).collect())
}

/// The form in which nft and iptables keep a rule's comment.
fn userdata(comment: &str) -> Vec<u8> {
    const COMMENT: u8 = 0;
    let mut data = vec![COMMENT, comment.len() as u8 + 1];
    data.extend_from_slice(comment.as_bytes());
    data.push(0);
    data
}

fn transact(socket: &mut Socket, messages: Vec<Message>) -> io::Result<()> {
    const SUBSYSTEM_ID: [u8; 4] = [0, 0, 0, 10];
    let last = messages.len() + 1;
    let mut batch = vec![Message::new(BATCH_BEGIN, 0, &SUBSYSTEM_ID)];
    batch.extend(messages);
    batch.push(Message::new(BATCH_END, 0, &SUBSYSTEM_ID));
    socket.transaction(batch, |index| index != 0 && index != last)
}

fn family(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

fn new_table(table: &str) -> Message {
    Message::new(NEWTABLE, CREATE, &family(INET)).text(1, table)
}

fn delete_table(table: &str) -> Message {
    Message::new(DELTABLE, 0, &family(INET)).text(1, table)
}

fn chain(table: &str, name: &str, kind: &str, hook: u32, priority: i32) -> Message {
    Message::new(NEWCHAIN, CREATE, &family(INET))
        .text(1, table)
        .text(3, name)
        .nested(4, |at| at.big_endian(1, hook).attribute(2, &priority.to_be_bytes()))
        .big_endian(5, ACCEPT)
        .text(7, kind)
}

fn rule(family: u8, table: &str, chain: &str, expressions: Vec<Expression>) -> Message {
    rule_message(family, CREATE | APPEND, table, chain, expressions)
}

fn rule_message(family_number: u8, flags: u16, table: &str, chain: &str, expressions: Vec<Expression>) -> Message {
    const EXPRESSIONS: u16 = 4;
    const ELEMENT: u16 = 1;
    let message = Message::new(NEWRULE, flags, &family(family_number)).text(1, table).text(2, chain);
    message.nested(EXPRESSIONS, |list| {
        expressions.into_iter().fold(list, |list, expression| {
            list.nested(ELEMENT, |element| {
                element.text(1, expression.name).nested(2, |data| {
                    expression.attributes.into_iter().fold(data, |data, attribute| match attribute {
                        Attribute::Number(kind, value) => data.big_endian(kind, value),
                        Attribute::Value(kind, value) => data.nested(kind, |data| data.attribute(1, &value)),
                        Attribute::Verdict(kind, code) => {
                            data.nested(kind, |data| data.nested(2, |verdict| verdict.big_endian(1, code)))
                        }
                    })
                })
            })
        })
    })
}

#[derive(Clone, Debug)]
struct Expression {
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
}

const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;

fn meta(key: u32) -> Expression {
    Expression::new("meta", vec![Attribute::Number(1, REGISTER), Attribute::Number(2, key)])
}

fn cmp(operator: u32, value: &[u8]) -> Expression {
    let attributes = vec![Attribute::Number(1, REGISTER), Attribute::Number(2, operator), Attribute::Value(3, value.to_vec())];
    Expression::new("cmp", attributes)
}

fn verdict(code: u32) -> Expression {
    Expression::new("immediate", vec![Attribute::Number(1, REGISTER_VERDICT), Attribute::Verdict(2, code)])
}

/// An interface's name as the kernel compares it.
fn name(interface: &str) -> Vec<u8> {
    [interface.as_bytes(), b"\0"].concat()
}

const BASE_NETWORK: u32 = 1;
const BASE_TRANSPORT: u32 = 2;

fn payload(base: u32, offset: u32, length: u32) -> Expression {
    let number = Attribute::Number;
    Expression::new("payload", vec![number(1, REGISTER), number(2, base), number(3, offset), number(4, length)])
}

fn ipv4() -> Vec<Expression> {
    vec![meta(META_NFPROTO), cmp(EQUAL, &[IPV4])]
}

fn source(network: Ipv4Addr, length: u8) -> Vec<Expression> {
    within(12, network, length)
}

fn destination(network: Ipv4Addr, length: u8) -> Vec<Expression> {
    within(16, network, length)
}

/// The address at `offset` of the IPv4 header is in the network.
fn within(offset: u32, network: Ipv4Addr, length: u8) -> Vec<Expression> {
    let mask = super::subnet::mask(length);
    let number = Attribute::Number;
    let bitwise = vec![
        number(1, REGISTER),
        number(2, REGISTER),
        number(3, 4),
        Attribute::Value(4, mask.to_be_bytes().to_vec()),
        Attribute::Value(5, vec![0; 4]),
    ];
    let network = u32::from(network) & mask;
    vec![payload(BASE_NETWORK, offset, 4), Expression::new("bitwise", bitwise), cmp(EQUAL, &network.to_be_bytes())]
}

/// Port 53 of each server, by UDP and TCP.
fn name_server_rules(servers: &[Ipv4Addr]) -> Vec<Vec<Expression>> {
    let protocols = [libc::IPPROTO_UDP as u8, libc::IPPROTO_TCP as u8];
    let one = |server: &Ipv4Addr, protocol: u8| {
        let port = vec![payload(BASE_TRANSPORT, 2, 2), cmp(EQUAL, &DNS_PORT.to_be_bytes()), verdict(ACCEPT)];
        [ipv4(), destination(*server, 32), vec![meta(META_L4PROTO), cmp(EQUAL, &[protocol])], port].concat()
    };
    servers.iter().flat_map(|server| protocols.map(|protocol| one(server, protocol))).collect()
}

/// Type of the route to the destination (`RTN_LOCAL`: an address of this machine).
const LOCAL: u32 = 2;

fn destination_type() -> Expression {
    const RESULT_ADDRESS_TYPE: u32 = 3;
    const BY_DESTINATION: u32 = 2;
    let number = Attribute::Number;
    Expression::new("fib", vec![number(1, REGISTER), number(2, RESULT_ADDRESS_TYPE), number(3, BY_DESTINATION)])
}

/// Packets of a connection that a step has begun.
fn answers() -> Vec<Expression> {
    const KEY_STATE: u32 = 0;
    const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
    let number = Attribute::Number;
    let state = Expression::new("ct", vec![number(1, REGISTER), number(2, KEY_STATE)]);
    let bits = Expression::new(
        "bitwise",
        vec![
            number(1, REGISTER),
            number(2, REGISTER),
            number(3, 4),
            Attribute::Value(4, ESTABLISHED_OR_RELATED.to_ne_bytes().to_vec()),
            Attribute::Value(5, vec![0; 4]),
        ],
    );
    vec![state, bits, cmp(NOT_EQUAL, &[0; 4])]
}
