//! A containerd of the tests' own, as Kubernetes' nodes have one, and its client `ctr`. It is started by the first test
//! that wants it and shared by all of this run; each test has a namespace of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use super::paths;
use super::tool::Tool;

const START_SECONDS_MAX: u64 = 60;

/// Owns the daemon for as long as its standard input stays open, as that of `engine.rs` does.
const GUARD: &str = r#"
dir=$1
shift
"$@" >"$dir/containerd.log" 2>&1 </dev/null &
daemon=$!
cat >/dev/null
kill "$daemon"
wait "$daemon"
rm -rf "$dir"
"#;

struct Containerd {
    dir: PathBuf,
    _guard: Child,
}

/// A namespace: images and contents that other tests don't see.
pub(crate) struct Namespace {
    name: String,
    daemon: &'static Containerd,
}

impl Namespace {
    pub(crate) fn new(name: &str) -> Self {
        static DAEMON: LazyLock<Containerd> = LazyLock::new(Containerd::start);
        Self {
            name: name.to_owned(),
            daemon: &DAEMON,
        }
    }

    /// `ctr images COMMAND`
    pub(crate) fn images(&self, command: &str) -> Tool {
        Tool::peer("ctr", "engine")
            .arg("--address")
            .arg(self.daemon.dir.join("s"))
            .args(["--namespace", &self.name, "images", command])
    }

    /// Takes over an OCI layout's image, all platforms of it; its name is `NAME:TAG`, by the layout's tag.
    #[track_caller]
    pub(crate) fn import(&self, layout: &Path, name: &str) {
        let archive = layout.with_extension("tar");
        let tar = Tool::debian("tar").arg("-C").arg(layout).arg("-cf");
        tar.arg(&archive).arg(".").ok();
        self.images("import")
            .args(["--all-platforms", "--no-unpack", "--base-name", name])
            .arg(&archive)
            .ok();
    }

    /// Writes an image with all its platforms as an OCI layout.
    #[track_caller]
    pub(crate) fn export(&self, name: &str, layout: &Path) {
        let archive = layout.with_extension("tar");
        let export = self.images("export").arg("--all-platforms");
        export.arg(&archive).arg(name).ok();
        fs::create_dir(layout).expect("make a directory");
        let tar = Tool::debian("tar").arg("-C").arg(layout).arg("-xf");
        tar.arg(&archive).ok();
    }

    /// Forgets an image and everything that only it needs.
    #[track_caller]
    pub(crate) fn remove(&self, name: &str) {
        self.images("remove").args(["--sync", name]).ok();
    }
}

impl Containerd {
    fn start() -> Self {
        let dir = paths::scratch().keep();
        let config = dir.join("config.toml");
        fs::write(&config, configuration(&dir)).expect("write containerd's configuration");
        let mut guard = Command::new("sh");
        guard
            .args(["-c", GUARD, "guard"])
            .arg(&dir)
            .arg(paths::peer("containerd", "engine"))
            .arg("--config")
            .arg(config)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Ctrl-C reaches the tests alone; the end of their standard input ends the daemon.
        std::os::unix::process::CommandExt::process_group(&mut guard, 0);
        let guard = guard.spawn().expect("start containerd's guard");
        let daemon = Self { dir, _guard: guard };
        daemon.await_start();
        daemon
    }

    fn await_start(&self) {
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        let version = || {
            let ctr = Tool::peer("ctr", "engine").arg("--address");
            ctr.arg(self.dir.join("s")).arg("version").run().code
        };
        while version() != Some(0) {
            let log = || fs::read_to_string(self.dir.join("containerd.log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "containerd does not start\n{}", log());
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Everything below `dir`, and nothing that wants a network, containers or /opt.
fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"version = 3
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = [
    "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
    "io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri", "io.containerd.ttrpc.v1.otelttrpc",
]
[grpc]
address = "{dir}/s"
"#
    )
}
