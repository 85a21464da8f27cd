//! An S3 server: versitygw over a directory, so that a test sees what lies in the bucket.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::paths;
use super::server::Server;
use super::tool::Tool;

const BUCKET: &str = "blobs";
const KEY: &str = "tester";
const SECRET: &str = "testers-secret";
const START_SECONDS_MAX: u64 = 30;
const POLL: Duration = Duration::from_millis(10);

pub(crate) struct Gateway {
    child: Child,
    address: SocketAddr,
    dir: TempDir,
}

impl Gateway {
    pub(crate) fn start() -> Self {
        let dir = paths::scratch();
        fs::create_dir_all(dir.path().join(BUCKET)).expect("make the bucket");
        // Taken by the server as soon as it is free again.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = address.expect("a free port");
        let child = Command::new(paths::peer("versitygw", "s3"))
            .args(["--access", KEY, "--secret", SECRET, "--keep-alive", "--quiet"])
            .args(["--port", &address.to_string(), "posix"])
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start versitygw");
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "versitygw does not listen");
            thread::sleep(POLL);
        }
        Self { child, address, dir }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How a registry keeps its blobs here, as the environment writes it.
    pub(crate) fn settings(&self) -> [String; 6] {
        [
            "LAYERYARD_STORAGE__BACKEND=s3".to_owned(),
            format!("LAYERYARD_STORAGE__S3__BUCKET={BUCKET}"),
            format!("LAYERYARD_STORAGE__S3__ENDPOINT=http://{}", self.address),
            "LAYERYARD_STORAGE__S3__PATH_STYLE=true".to_owned(),
            format!("LAYERYARD_STORAGE__S3__ACCESS_KEY_ID={KEY}"),
            format!("LAYERYARD_STORAGE__S3__SECRET_ACCESS_KEY={SECRET}"),
        ]
    }

    /// A registry that keeps its blobs here, with more settings as the environment writes them.
    pub(crate) fn serve(&self, more: &[&str]) -> Server {
        let own = self.settings();
        let mut prefix = vec!["env"];
        prefix.extend(own.iter().map(String::as_str));
        prefix.extend(more);
        Server::start_under(&prefix)
    }

    /// The server stops in the middle of what it does: connections stay and nothing answers.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("signal versitygw");
    }

    /// Names of the objects that begin with `prefix`.
    pub(crate) fn objects(&self, prefix: &str) -> BTreeSet<String> {
        let root = self.dir.path().join(BUCKET);
        let files = files_below(&root);
        let names = files
            .iter()
            .filter_map(|path| path.strip_prefix(&root).ok()?.to_str());
        // What the gateway keeps for itself.
        let objects = names.filter(|name| !name.starts_with(".sgwtmp"));
        objects
            .filter(|name| name.starts_with(prefix))
            .map(str::to_owned)
            .collect()
    }

    /// Copies the objects that are chosen, as a tool for backups does.
    pub(crate) fn copy_to(&self, other: &Self, chosen: impl Fn(&str) -> bool) {
        for name in self.objects("").iter().filter(|name| chosen(name)) {
            let target = other.file(name);
            fs::create_dir_all(target.parent().expect("a directory")).expect("make a directory");
            // With its attributes, in which the gateway keeps what it knows of it.
            Tool::debian("cp")
                .arg("--archive")
                .arg(self.file(name))
                .arg(target)
                .ok();
        }
    }

    /// The file that an object is.
    pub(crate) fn file(&self, object: &str) -> PathBuf {
        self.dir.path().join(BUCKET).join(object)
    }

    /// Every object has a row that keeps it or will have it deleted, and every kept row has its object. `query` asks the
    /// database.
    #[track_caller]
    pub(crate) fn assert_accounted_for(&self, query: impl Fn(&str) -> String) {
        let live = query("SELECT storage_key FROM blobs");
        let named = query("SELECT storage_key FROM blobs UNION SELECT key FROM doomed");
        let named: BTreeSet<&str> = named.lines().collect();
        let mut there = self.objects("blobs/");
        there.extend(self.objects("d/"));
        for key in live.lines() {
            assert!(
                there.contains(key),
                "{key} is in the database and not in the bucket"
            );
        }
        for key in &there {
            assert!(named.contains(key.as_str()), "nobody knows {key}");
        }
    }

    /// How many parts of unfinished uploads there are.
    pub(crate) fn parts(&self) -> usize {
        files_below(&self.dir.path().join(BUCKET).join(".sgwtmp/multipart")).len()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Without those that disappear meanwhile.
fn files_below(root: &Path) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(root).into_iter().flatten();
    let files = entries.filter(|entry| entry.file_type().is_file());
    files.map(walkdir::DirEntry::into_path).collect()
}
