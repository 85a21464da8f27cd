//! `layeryard serve` on a free port with a data directory of its own; or, by hand, another registry.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::http::Request;
use super::paths;
use super::peer::Peer;
use super::tell;
use super::tool::Tool;
use super::upstream::free_address;

const NOBODY: u32 = 65534;
const START_SECONDS_MAX: u64 = 30;
const STOP_SECONDS_MAX: u64 = 30;
const LOG_LINES_SHOWN: usize = 40;
const POLL: Duration = Duration::from_millis(5);

pub(crate) struct Server {
    child: Option<Child>,
    address: SocketAddr,
    binary: PathBuf,
    /// Programs and arguments before `layeryard serve`: taskset, strace.
    prefix: Vec<String>,
    dir: TempDir,
    /// Another registry than the one under test.
    peer: Option<Peer>,
}

impl Server {
    pub(crate) fn start() -> Self {
        match Peer::chosen() {
            None => Self::start_under(&[]),
            Some(peer) => Self::start_peer(peer),
        }
    }

    fn start_peer(peer: Peer) -> Self {
        let mut server = Self {
            child: None,
            address: free_address(),
            binary: PathBuf::new(),
            prefix: Vec::new(),
            dir: paths::scratch(),
            peer: Some(peer),
        };
        server.launch();
        server
    }

    /// With a configuration file.
    pub(crate) fn start_configured(toml: &str) -> Self {
        let dir = paths::scratch();
        fs::create_dir(dir.path().join("data")).expect("make the data directory");
        fs::write(dir.path().join("layeryard.toml"), toml).expect("write the configuration");
        Self::start_in(dir, paths::layeryard(), Vec::new())
    }

    /// Another configuration file for the next start.
    pub(crate) fn configure(&self, toml: &str) {
        fs::write(self.dir.path().join("layeryard.toml"), toml).expect("write the configuration");
    }

    /// Starts it as the last arguments of another program, which must not fork.
    pub(crate) fn start_under(prefix: &[&str]) -> Self {
        let dir = paths::scratch();
        fs::create_dir(dir.path().join("data")).expect("make the data directory");
        Self::start_in(
            dir,
            paths::layeryard(),
            prefix.iter().map(|&part| part.to_owned()).collect(),
        )
    }

    /// With a configuration file of this text.
    pub(crate) fn start_with(config: &str) -> Self {
        Self::start_prepared(config, |_| {})
    }

    /// With a configuration that names files: `DIR` in it is a directory that `prepare` fills.
    pub(crate) fn start_prepared(config: &str, prepare: impl FnOnce(&Path)) -> Self {
        let dir = paths::scratch();
        fs::create_dir(dir.path().join("data")).expect("make the data directory");
        prepare(dir.path());
        let path = dir.path().join("config.toml");
        fs::write(&path, config.replace("DIR", &dir.path().display().to_string()))
            .expect("write a configuration");
        let prefix = vec!["env".to_owned(), format!("LAYERYARD_CONFIG={}", path.display())];
        Self::start_in(dir, paths::layeryard(), prefix)
    }

    /// As a user without rights, who can't read this repository either: from a copy of the binary.
    pub(crate) fn start_as_nobody() -> Self {
        let dir = paths::scratch();
        let data = dir.path().join("data");
        fs::create_dir(&data).expect("make the data directory");
        std::os::unix::fs::chown(&data, Some(NOBODY), Some(NOBODY)).expect("give the data directory away");
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755))
            .expect("open the scratch directory");
        let binary = dir.path().join("layeryard");
        fs::copy(paths::layeryard(), &binary).expect("copy the binary");
        let (user, group) = (format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"));
        let prefix = ["setpriv", &user, &group, "--clear-groups"]
            .map(str::to_owned)
            .to_vec();
        Self::start_in(dir, binary, prefix)
    }

    /// With a data directory that `prepare` makes something of, as a mount.
    pub(crate) fn start_on(prepare: impl FnOnce(&Path)) -> Self {
        let dir = paths::scratch();
        let data = dir.path().join("data");
        fs::create_dir(&data).expect("make the data directory");
        prepare(&data);
        Self::start_in(dir, paths::layeryard(), Vec::new())
    }

    fn start_in(dir: TempDir, binary: PathBuf, prefix: Vec<String>) -> Self {
        assert!(
            Peer::chosen().is_none(),
            "only Layeryard is configured this way: no test for another registry"
        );
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self {
            child: None,
            address,
            binary,
            prefix,
            dir,
            peer: None,
        };
        server.launch();
        server
    }

    /// The same data directory and port again.
    pub(crate) fn restart(&mut self) {
        assert!(self.child.is_none(), "the server still runs");
        self.launch();
    }

    /// SIGKILL, as when the machine's memory runs out.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("kill the server");
            child.wait().expect("wait for the server");
        }
    }

    /// SIGTERM and wait: the server must come to an end by itself.
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        let pid = Pid::from_child(&child);
        kill_process(pid, Signal::TERM).expect("signal the server");
        let deadline = Instant::now() + Duration::from_secs(STOP_SECONDS_MAX);
        while child.try_wait().expect("wait for the server").is_none() {
            if Instant::now() > deadline {
                child.kill().expect("kill the server");
                panic!("the server ignores SIGTERM\n{}", self.log());
            }
            thread::sleep(POLL);
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// `127.0.0.1:PORT`, as image names begin.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    /// The most memory it has ever had in use.
    pub(crate) fn memory_peak_kib(&self) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("read the server's status");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM:"))
            .expect("a peak");
        line.split_whitespace()
            .nth(1)
            .and_then(|kib| kib.parse().ok())
            .expect("a number")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Files beside the data directory, for the test's own use.
    pub(crate) fn scratch(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("serve.log")).unwrap_or_default()
    }

    pub(crate) fn request(&self, method: &str, target: &str) -> Request {
        Request::new(method, self.address, target)
    }

    /// What Prometheus would read.
    pub(crate) fn metrics(&self) -> String {
        let answer = self.request("GET", "/metrics").send().expect(200);
        String::from_utf8(answer.body).expect("metrics are text")
    }

    /// `layeryard` as a client of this server.
    pub(crate) fn layeryard<A: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Tool {
        Tool::layeryard().env("LAYERYARD_SERVER", self.url()).args(args)
    }

    /// After whatever a test did to it, the server must still serve.
    #[track_caller]
    pub(crate) fn assert_healthy(&mut self) {
        let child = self.child.as_mut().expect("the server runs");
        if let Some(status) = child.try_wait().expect("look at the server") {
            panic!("the server ended: {status}\n{}", self.log());
        }
        self.request("GET", "/v2/").send().expect(200);
        let log = self.log();
        assert!(!log.contains("panicked at"), "the server panicked:\n{log}");
    }

    fn launch(&mut self) {
        let addresses = self.data_dir().join("run/addresses");
        // A killed server leaves its file; ours is the one written from now on.
        if let Err(error) = fs::remove_file(&addresses) {
            assert_eq!(
                error.kind(),
                std::io::ErrorKind::NotFound,
                "{}",
                addresses.display()
            );
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("serve.log"));
        let log = log.expect("open the server's log");
        let mut command = match self.peer {
            None => self.command(),
            Some(peer) => peer.command(self.dir.path(), self.address),
        };
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("duplicate the log"))
            .stderr(log);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        self.child = Some(child);
        self.await_address(&addresses);
    }

    fn command(&self) -> Command {
        let mut command = match self.prefix.split_first() {
            None => Command::new(&self.binary),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(&self.binary);
                command
            }
        };
        command
            .arg("serve")
            .arg("--listen")
            .arg(self.address.to_string())
            .arg("--data-dir")
            .arg(self.data_dir());
        let config = self.dir.path().join("layeryard.toml");
        if config.exists() {
            command.arg("--config").arg(config);
        }
        command.env_remove("LAYERYARD_SERVER");
        command
    }

    fn await_address(&mut self, addresses: &Path) {
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        loop {
            if self.peer.is_some() && Peer::answers(self.address) {
                return;
            }
            if let Ok(text) = fs::read_to_string(addresses)
                && let Some(first) = text.lines().next()
            {
                let address = first.rsplit('/').next().unwrap_or(first);
                self.address = address
                    .parse()
                    .unwrap_or_else(|error| panic!("address {first:?}: {error}"));
                return;
            }
            let child = self.child.as_mut().expect("just started");
            if let Some(status) = child.try_wait().expect("look at the server") {
                panic!("the server did not start: {status}\n{}", self.log());
            }
            assert!(
                Instant::now() < deadline,
                "the server names no address\n{}",
                self.log()
            );
            thread::sleep(POLL);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let tail = log.lines().count().saturating_sub(LOG_LINES_SHOWN);
            let tail: Vec<&str> = log.lines().skip(tail).collect();
            tell(&format!(
                "--- the server's last lines ---
{}",
                tail.join(
                    "
"
                )
            ));
        }
        if self.child.is_none() {
            return;
        }
        // A clean stop takes the worker and its mounts along; one that hangs is killed.
        if thread::panicking() {
            let pid = Pid::from_child(self.child.as_ref().expect("checked above"));
            let _ = kill_process(pid, Signal::TERM);
            thread::sleep(Duration::from_millis(500));
            self.kill();
        } else {
            self.stop();
        }
    }
}
