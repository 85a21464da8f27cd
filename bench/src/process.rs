//! Programs that run beside the bench: started, watched, ended by process id.

use std::collections::HashMap;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::http::Connection;

const START_MAX: Duration = Duration::from_secs(30);
const STOP_MAX: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);
/// Short, because starts are measured too.
const READY_POLL: Duration = Duration::from_millis(2);

/// A server that answers HTTP on `address`.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// What clients must say to be let in.
    pub(crate) authorization: Option<&'static str>,
    /// Processes that work for it without being below it: its database.
    helpers: Vec<u32>,
    child: Child,
}

impl Server {
    /// Starts a command with its output in `log` and waits until it answers `ready_path`.
    pub(crate) fn start(
        name: &'static str,
        address: SocketAddr,
        command: &Command,
        log: &Path,
        ready_path: &str,
    ) -> Result<Self> {
        // setpriv, so that no server outlives the bench, however that ends; it keeps the process id.
        let mut guarded = Command::new("setpriv");
        guarded
            .args(["--pdeathsig", "KILL", "--"])
            .arg(command.get_program())
            .args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => guarded.env(key, value),
                None => guarded.env_remove(key),
            };
        }
        let output = File::create(log)?;
        guarded
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let child = guarded.spawn().with_context(|| format!("cannot start {name}"))?;
        let mut server = Self {
            name,
            address,
            authorization: None,
            helpers: Vec::new(),
            child,
        };
        server.wait_until_ready(ready_path).with_context(|| {
            let said = fs::read_to_string(log).unwrap_or_default();
            let said = said.lines().rev().take(5).collect::<Vec<_>>();
            format!("{name} doesn't serve; it said {said:?}")
        })?;
        Ok(server)
    }

    fn wait_until_ready(&mut self, path: &str) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < START_MAX {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}");
            }
            let answer = Connection::open(self.address).and_then(|mut c| c.request("GET", path, &[], &[]));
            if answer.is_ok_and(|answer| answer.status < 500) {
                return Ok(());
            }
            sleep(READY_POLL);
        }
        bail!("no answer within {} s", START_MAX.as_secs())
    }

    /// Clients send this from now on.
    pub(crate) fn with_authorization(mut self, authorization: &'static str) -> Self {
        self.authorization = Some(authorization);
        self
    }

    /// The processor time of this process and all below it counts as the server's. Not its memory: that is shared, and
    /// whose it is can't be told.
    pub(crate) fn with_helper(mut self, pid: u32) -> Self {
        self.helpers.push(pid);
        self
    }

    pub(crate) fn connect(&self) -> Result<Connection> {
        Connection::open(self.address)
            .map(|connection| connection.with_authorization(self.authorization))
            .with_context(|| self.name)
    }

    pub(crate) fn connections(&self, count: usize) -> Result<Vec<Connection>> {
        (0..count).map(|_| self.connect()).collect()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// As when the machine's memory runs out.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The most resident memory its first process has ever had.
    pub(crate) fn high_water_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kibibytes.context("no VmHWM")? << 10)
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        let mut total = usage_of_tree(self.pid())?;
        for &helper in &self.helpers {
            total.cpu_seconds += usage_of_tree(helper)?.cpu_seconds;
        }
        Ok(total)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let start = Instant::now();
        while start.elapsed() < STOP_MAX {
            match self.child.try_wait() {
                Ok(None) => sleep(POLL),
                _ => return,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process and all below it have used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Also of those below that have ended.
    pub(crate) cpu_seconds: f64,
    pub(crate) rss_bytes: u64,
}

pub(crate) fn usage_of_tree(root: u32) -> Result<Usage> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut own: HashMap<u32, Usage> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end between two reads.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let (parent, usage) = parse_stat(&stat).with_context(|| format!("cannot read {stat:?}"))?;
        children.entry(parent).or_default().push(pid);
        own.insert(pid, usage);
    }
    let mut total = Usage::default();
    let mut pending = vec![root];
    while let Some(pid) = pending.pop() {
        let usage = own.get(&pid).copied().unwrap_or_default();
        total.cpu_seconds += usage.cpu_seconds;
        total.rss_bytes += usage.rss_bytes;
        pending.extend(children.remove(&pid).unwrap_or_default());
    }
    Ok(total)
}

/// Parent, processor time and resident memory of a line of /proc/PID/stat (proc(5)).
fn parse_stat(stat: &str) -> Option<(u32, Usage)> {
    // The second field is a name in parentheses that may hold anything.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let number = |index: usize| fields.get(index - 3)?.parse::<u64>().ok();
    let ticks = number(14)? + number(15)? + number(16)? + number(17)?;
    let usage = Usage {
        cpu_seconds: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
        rss_bytes: number(24)? * rustix::param::page_size() as u64,
    };
    Some((u32::try_from(number(4)?).ok()?, usage))
}

/// A free port of the loopback device. Nobody else takes ports here between this and the server's bind.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Runs a command to its end and returns what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {said}",
        output.status
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_with_its_memory() {
        let usage = usage_of_tree(std::process::id()).expect("own usage");
        assert!(usage.rss_bytes > 100_000, "{usage:?}");
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 3 7 7 0 -1 0 1 0 0 0 200 100 30 20 20 0 1 0 5 4096 10 0";
        let (parent, usage) = parse_stat(stat).expect("parses");
        assert_eq!(parent, 3);
        assert!((usage.cpu_seconds - 3.5).abs() < 1e-9, "{usage:?}");
        assert_eq!(usage.rss_bytes, 10 * rustix::param::page_size() as u64);
    }
}
