//! Rules of ours in iptables' own table, where that is kept by nf_tables.

use std::io;

use super::expression::{self, IPV4, Is};
use super::{RULE_CHAIN, SUBSYSTEM, TABLE, header, new_rule, transact};
use crate::network::netlink::{self, Message, Socket};

const GETCHAIN: u16 = SUBSYSTEM | 4;
const GETRULE: u16 = SUBSYSTEM | 7;
const DELRULE: u16 = SUBSYSTEM | 8;
const CHAIN_NAME: u16 = 3;
const RULE_HANDLE: u16 = 3;
const RULE_USERDATA: u16 = 7;

const FILTER: &str = "filter";
const FORWARD: &str = "FORWARD";

/// A rule, known by its comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::network) struct ForeignRule {
    handle: u64,
}

/// The rules with `comment` in the chain FORWARD. None: there is no such chain.
pub(in crate::network) fn find_forward_rules(
    socket: &mut Socket,
    comment: &str,
) -> io::Result<Option<Vec<ForeignRule>>> {
    if !forward_chain_exists(socket)? {
        return Ok(None);
    }
    let list = Message::new(GETRULE, 0, &header(IPV4))
        .text(TABLE, FILTER)
        .text(RULE_CHAIN, FORWARD);
    let wanted = userdata(comment);
    let ours = |(_, body): &(u16, Vec<u8>)| {
        let attributes = netlink::attributes(body.get(4..)?);
        let value = |kind: u16| {
            attributes
                .iter()
                .find(|(found, _)| *found == kind)
                .map(|(_, value)| *value)
        };
        let handle = u64::from_be_bytes(*value(RULE_HANDLE)?.first_chunk()?);
        (value(RULE_USERDATA)? == wanted).then_some(ForeignRule { handle })
    };
    Ok(Some(socket.dump(list)?.iter().filter_map(ours).collect()))
}

fn forward_chain_exists(socket: &mut Socket) -> io::Result<bool> {
    let chains = socket.dump(Message::new(GETCHAIN, 0, &header(IPV4)))?;
    Ok(chains.iter().any(|(_, body)| {
        let attributes = netlink::attributes(body.get(4..).unwrap_or_default());
        let is = |kind: u16, text: &str| {
            let with_nul = [text.as_bytes(), b"\0"].concat();
            attributes
                .iter()
                .any(|(found, value)| *found == kind && *value == with_nul)
        };
        is(TABLE, FILTER) && is(CHAIN_NAME, FORWARD)
    }))
}

/// Puts rules before all others of FORWARD that let the bridge's packets pass: with Docker its policy is to drop,
/// and no verdict of our own table overrules that.
///
/// Only expressions that iptables itself uses: it refuses to list a table with others. That only answers come
/// back in is the business of our own table.
pub(in crate::network) fn insert_forward_rules(
    socket: &mut Socket,
    bridge: &str,
    comment: &str,
) -> io::Result<()> {
    const AT_THE_BEGINNING: u16 = 0;
    let directions = [
        expression::input(Is::Equal, bridge),
        expression::output(Is::Equal, bridge),
    ];
    let messages = directions.map(|direction| {
        let rule = [direction, expression::count(), expression::accept()].concat();
        new_rule(IPV4, AT_THE_BEGINNING, FILTER, FORWARD, rule).attribute(RULE_USERDATA, &userdata(comment))
    });
    transact(socket, messages.to_vec())
}

pub(in crate::network) fn delete_forward_rules(socket: &mut Socket, rules: &[ForeignRule]) -> io::Result<()> {
    let delete = |rule: &ForeignRule| {
        Message::new(DELRULE, 0, &header(IPV4))
            .text(TABLE, FILTER)
            .text(RULE_CHAIN, FORWARD)
            .attribute(RULE_HANDLE, &rule.handle.to_be_bytes())
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
