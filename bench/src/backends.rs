//! What a server of many replicas keeps its data in: PostgreSQL and a bucket, on the disk under test.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::disk::Disk;
use crate::process::free_address;
use crate::servers::Programs;

const POSTGRES: &str = "tests/peers/postgres.sh";

const BUCKET: &str = "blobs";
const KEY: &str = "bench";
const SECRET: &str = "measured-secret";

const START_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// Debian's PostgreSQL with its own settings, durable.
#[derive(Debug)]
pub(crate) struct Postgres {
    url: String,
    postmaster: u32,
    child: Child,
    /// It ends when this closes, so with the bench.
    commands: Option<ChildStdin>,
}

impl Postgres {
    pub(crate) fn start(disk: &Disk) -> Result<Self> {
        let mut child = Command::new(POSTGRES)
            // Tests switch it off; the last one counts.
            .arg("fsync=on")
            .env("TMPDIR", disk.root())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {POSTGRES}"))?;
        let commands = child.stdin.take();
        let mut url = String::new();
        let output = child.stdout.take().context("no output")?;
        BufReader::new(output).read_line(&mut url)?;
        let (_, directory) = url
            .trim()
            .split_once("?host=")
            .context("PostgreSQL does not start")?;
        let notes = fs::read_to_string(Path::new(directory).join("data/postmaster.pid"))?;
        let postmaster = notes.lines().next().context("no process in postmaster.pid")?;
        Ok(Self {
            postmaster: postmaster.trim().parse()?,
            url: url.trim().replace("DATABASE", "postgres"),
            child,
            commands,
        })
    }

    pub(crate) fn settings(&self) -> [(&'static str, String); 1] {
        [("database.url", self.url.clone())]
    }

    /// The process that all of its others are below.
    pub(crate) fn postmaster(&self) -> u32 {
        self.postmaster
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.commands = None;
        let _ = self.child.wait();
    }
}

/// versitygw over a directory.
#[derive(Debug)]
pub(crate) struct Bucket {
    address: SocketAddr,
    child: Child,
}

impl Bucket {
    pub(crate) fn start(programs: &Programs, disk: &Disk) -> Result<Self> {
        let directory = disk.root().join("s3");
        fs::create_dir_all(directory.join(BUCKET))?;
        let address = free_address()?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(programs.peers.join("bin/versitygw"))
            .args(["--access", KEY, "--secret", SECRET, "--keep-alive", "--quiet"])
            .args(["--port", &address.to_string(), "posix"])
            .arg(&directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start versitygw")?;
        let bucket = Self { address, child };
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            ensure!(start.elapsed() < START_MAX, "versitygw does not listen");
            sleep(POLL);
        }
        Ok(bucket)
    }

    pub(crate) fn settings(&self) -> [(&'static str, String); 6] {
        [
            ("storage.backend", "s3".into()),
            ("storage.s3.bucket", BUCKET.into()),
            ("storage.s3.endpoint", format!("http://{}", self.address)),
            ("storage.s3.path_style", "true".into()),
            ("storage.s3.access_key_id", KEY.into()),
            ("storage.s3.secret_access_key", SECRET.into()),
        ]
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
