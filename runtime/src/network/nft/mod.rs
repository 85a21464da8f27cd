//! Packet rules by nf_tables: one table of our own, made and removed as a whole.
//!
//! ```text
//! table inet BRIDGE {
//!   chain prerouting  { filter, before everything }   step → machine: name servers, nothing else
//!   chain input       { filter }                       the same again, after redirections
//!   chain forward     { filter }                       step → step: nothing; world → step: answers only
//!   chain postrouting { nat }                          step → world: from our address
//! }
//! ```

mod expression;
mod foreign;

use std::io;
use std::net::Ipv4Addr;

use expression::{Expression, Is, Rule};
pub(super) use foreign::{delete_forward_rules, find_forward_rules, insert_forward_rules};

use super::link::Prefix;
use super::netlink::{APPEND, CREATE, Message, Socket};

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEWTABLE: u16 = SUBSYSTEM;
const DELTABLE: u16 = SUBSYSTEM | 2;
const NEWCHAIN: u16 = SUBSYSTEM | 3;
const NEWRULE: u16 = SUBSYSTEM | 6;

/// Attributes of tables, chains and rules, as far as they have the same number.
const TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;

/// The family of tables that sees IPv4 and IPv6.
const INET: u8 = 1;

/// Before connection tracking and before any port of the machine is redirected.
const PRIORITY_RAW: i32 = -300;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SOURCE_NAT: i32 = 100;

/// What the table says.
pub(super) struct Rules<'a> {
    pub(super) bridge: &'a str,
    pub(super) subnet: Prefix,
    /// Reachable on port 53, wherever they are.
    pub(super) name_servers: &'a [Ipv4Addr],
    /// Reachable by no step: link-local metadata services, and what the caller adds.
    pub(super) denied: &'a [Prefix],
}

/// A chain and where it hangs.
struct Chain {
    name: &'static str,
    kind: &'static str,
    hook: u32,
    priority: i32,
    rules: Vec<Rule>,
}

/// Makes the table, in place of what an earlier process left under its name.
pub(super) fn install(socket: &mut Socket, rules: &Rules<'_>) -> io::Result<()> {
    let table = rules.bridge;
    let mut messages = vec![new_table(table), delete_table(table), new_table(table)];
    for chain in [
        prerouting(rules),
        input(rules),
        forward(rules),
        postrouting(rules),
    ] {
        messages.push(new_chain(table, &chain));
        let append = |rule| new_rule(INET, APPEND, table, chain.name, rule);
        messages.extend(chain.rules.into_iter().map(append));
    }
    transact(socket, messages)
}

/// Removes the table, if there is one.
pub(super) fn remove(socket: &mut Socket, table: &str) -> io::Result<()> {
    transact(socket, vec![new_table(table), delete_table(table)])
}

fn prerouting(rules: &Rules<'_>) -> Chain {
    let mut chain = Chain {
        name: "prerouting",
        kind: "filter",
        hook: 0,
        priority: PRIORITY_RAW,
        rules: Vec::new(),
    };
    chain.rules.push(unconcerned(rules));
    // Steps have IPv4 only; what else they send is an attempt.
    chain
        .rules
        .push([expression::ipv4(Is::NotEqual), expression::drop()].concat());
    chain.rules.extend(name_servers(rules));
    for network in rules.denied {
        chain
            .rules
            .push([expression::to(*network), expression::drop()].concat());
    }
    chain
        .rules
        .push([expression::to_this_machine(), expression::drop()].concat());
    chain
}

fn input(rules: &Rules<'_>) -> Chain {
    let mut chain = Chain {
        name: "input",
        kind: "filter",
        hook: 1,
        priority: PRIORITY_FILTER,
        rules: Vec::new(),
    };
    chain.rules.push(unconcerned(rules));
    chain.rules.extend(name_servers(rules));
    chain.rules.push(expression::drop());
    chain
}

fn forward(rules: &Rules<'_>) -> Chain {
    let to_steps = || expression::output(Is::Equal, rules.bridge);
    let from_steps = expression::input(Is::Equal, rules.bridge);
    let list = vec![
        [to_steps(), from_steps, expression::drop()].concat(),
        [to_steps(), expression::answer(), expression::accept()].concat(),
        [to_steps(), expression::drop()].concat(),
    ];
    Chain {
        name: "forward",
        kind: "filter",
        hook: 2,
        priority: PRIORITY_FILTER,
        rules: list,
    }
}

fn postrouting(rules: &Rules<'_>) -> Chain {
    let outward = expression::output(Is::NotEqual, rules.bridge);
    let list = vec![[expression::from(rules.subnet), outward, expression::masquerade()].concat()];
    Chain {
        name: "postrouting",
        kind: "nat",
        hook: 4,
        priority: PRIORITY_SOURCE_NAT,
        rules: list,
    }
}

/// Packets that come from elsewhere are no business of a chain.
fn unconcerned(rules: &Rules<'_>) -> Rule {
    [
        expression::input(Is::NotEqual, rules.bridge),
        expression::accept(),
    ]
    .concat()
}

fn name_servers(rules: &Rules<'_>) -> impl Iterator<Item = Rule> {
    let to_servers = expression::to_name_servers(rules.name_servers);
    to_servers
        .into_iter()
        .map(|rule| [rule, expression::accept()].concat())
}

/// All or nothing.
fn transact(socket: &mut Socket, messages: Vec<Message>) -> io::Result<()> {
    const SUBSYSTEM_ID: [u8; 4] = [0, 0, 0, 10];
    let last = messages.len() + 1;
    let mut batch = vec![Message::new(BATCH_BEGIN, 0, &SUBSYSTEM_ID)];
    batch.extend(messages);
    batch.push(Message::new(BATCH_END, 0, &SUBSYSTEM_ID));
    socket.transaction(batch, |index| index != 0 && index != last)
}

fn header(family: u8) -> [u8; 4] {
    [family, 0, 0, 0]
}

fn new_table(table: &str) -> Message {
    Message::new(NEWTABLE, CREATE, &header(INET)).text(TABLE, table)
}

fn delete_table(table: &str) -> Message {
    Message::new(DELTABLE, 0, &header(INET)).text(TABLE, table)
}

fn new_chain(table: &str, chain: &Chain) -> Message {
    const NAME: u16 = 3;
    const HOOK: u16 = 4;
    const POLICY: u16 = 5;
    const KIND: u16 = 7;
    const POLICY_ACCEPT: u32 = 1;
    Message::new(NEWCHAIN, CREATE, &header(INET))
        .text(TABLE, table)
        .text(NAME, chain.name)
        .nested(HOOK, |hook| {
            hook.big_endian(1, chain.hook)
                .attribute(2, &chain.priority.to_be_bytes())
        })
        .big_endian(POLICY, POLICY_ACCEPT)
        .text(KIND, chain.kind)
}

/// A rule at the end of a chain with `APPEND`, else at its beginning.
fn new_rule(family: u8, place: u16, table: &str, chain: &str, rule: Rule) -> Message {
    const EXPRESSIONS: u16 = 4;
    const ELEMENT: u16 = 1;
    let append =
        |list: Message, expression: Expression| list.nested(ELEMENT, |element| expression.write(element));
    Message::new(NEWRULE, CREATE | place, &header(family))
        .text(TABLE, table)
        .text(RULE_CHAIN, chain)
        .nested(EXPRESSIONS, |list| rule.into_iter().fold(list, append))
}
