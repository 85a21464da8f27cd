//! Getting along with a firewall whose forwarding policy is to drop, as Docker sets it.
//!
//! Such a policy can be set at any time, so this is checked again when steps start. Our rules go first into
//! iptables' FORWARD chain, only where that chain exists: directly if it is kept by nf_tables, by the
//! `iptables` program if it is of the older kind.

use std::io;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::netlink::Socket;
use super::nft;

/// A check costs a few netlink messages, or with old iptables two processes.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

const LEGACY_TABLES: &str = "/proc/net/ip_tables_names";
const LEGACY_PROGRAMS: [&str; 3] = [
    "iptables-legacy",
    "/usr/sbin/iptables-legacy",
    "/usr/sbin/iptables",
];

/// Keeps the bridge's packets accepted.
#[derive(Debug)]
pub(super) struct Forwarding {
    bridge: String,
    comment: String,
    checked: Option<Instant>,
}

impl Forwarding {
    pub(super) fn new(bridge: &str) -> Self {
        Self {
            bridge: bridge.to_owned(),
            comment: format!("layeryard {bridge}"),
            checked: None,
        }
    }

    /// Inserts what is missing, unless that was looked at a moment ago.
    pub(super) fn ensure(&mut self) -> io::Result<()> {
        if self
            .checked
            .is_some_and(|checked| checked.elapsed() < CHECK_INTERVAL)
        {
            return Ok(());
        }
        let mut socket = Socket::netfilter()?;
        if let Some(rules) = nft::find_forward_rules(&mut socket, &self.comment)?
            && rules.len() != DIRECTIONS.len()
        {
            nft::delete_forward_rules(&mut socket, &rules)?;
            nft::insert_forward_rules(&mut socket, &self.bridge, &self.comment)?;
        }
        if legacy_filter_exists() {
            for direction in DIRECTIONS {
                if !self.legacy("-C", direction)? {
                    self.legacy("-I", direction)?;
                }
            }
        }
        self.checked = Some(Instant::now());
        Ok(())
    }

    /// Removes ours, also those of an earlier process for the same bridge.
    pub(super) fn remove(&mut self) -> io::Result<()> {
        self.checked = None;
        let mut socket = Socket::netfilter()?;
        if let Some(rules) = nft::find_forward_rules(&mut socket, &self.comment)?
            && !rules.is_empty()
        {
            nft::delete_forward_rules(&mut socket, &rules)?;
        }
        if legacy_filter_exists() {
            for direction in DIRECTIONS {
                while self.legacy("-D", direction)? {}
            }
        }
        Ok(())
    }

    /// Runs one command of the old iptables. True: it succeeded.
    fn legacy(&self, operation: &str, direction: &str) -> io::Result<bool> {
        let arguments = [
            "-w",
            operation,
            "FORWARD",
            direction,
            &self.bridge,
            "-m",
            "comment",
            "--comment",
            &self.comment,
        ];
        let mut last = Err(io::Error::from_raw_os_error(libc::ENOENT));
        for program in LEGACY_PROGRAMS {
            let mut command = Command::new(program);
            command
                .args(arguments)
                .args(["-j", "ACCEPT"])
                .stdin(Stdio::null());
            last = command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .map(|status| status.success());
            if last.is_ok() {
                break;
            }
        }
        last
    }
}

const DIRECTIONS: [&str; 2] = ["-i", "-o"];

fn legacy_filter_exists() -> bool {
    std::fs::read_to_string(LEGACY_TABLES).is_ok_and(|names| names.lines().any(|name| name == "filter"))
}
