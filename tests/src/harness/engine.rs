//! Docker engines: Debian's 20.10 and the newest. Each has its own directories, socket and bridge, is started by the
//! first test that wants it and shared by all of this run.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use super::paths;
use super::tool::Tool;

const START_SECONDS_MAX: u64 = 90;

/// Owns an engine for as long as its standard input stays open: when the test process ends, however it ends, the
/// engine is stopped and what it left behind is removed. Rust has no hook that runs at the end of all tests.
const GUARD: &str = r#"
dir=$1 bridge=$2 address=$3
shift 3
ip link add "$bridge" type bridge && ip addr add "$address" dev "$bridge" && ip link set "$bridge" up || exit 1
"$@" >"$dir/dockerd.log" 2>&1 </dev/null &
engine=$!
cat >/dev/null
kill "$engine"
wait "$engine"
ip link del "$bridge"
for table in nat filter; do
    iptables-save -t "$table" | grep -e "^-A.* $bridge " | sed 's/^-A/-D/' |
        while read -r rule; do iptables -t "$table" $rule; done
done
rm -rf "$dir"
"#;

pub(crate) struct Engine {
    dir: PathBuf,
    _guard: Child,
}

/// docker.io 20.10: graph drivers, Docker media types.
pub(crate) fn debian() -> &'static Engine {
    static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
        let path = "/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
        Engine::start('d', paths::debian("dockerd"), path, &[])
    });
    &ENGINE
}

/// The newest engine: containerd image store, OCI media types.
pub(crate) fn newest() -> &'static Engine {
    static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
        let dockerd = paths::peer("dockerd", "engine");
        let bin = dockerd.parent().expect("bin/").display();
        // Its own iptables rules would fight with the other engine's over the same chains.
        Engine::start(
            'n',
            dockerd.clone(),
            format!("{bin}:/usr/sbin:/usr/bin:/sbin:/bin"),
            &["--iptables=false"],
        )
    });
    &ENGINE
}

impl Engine {
    /// The Docker command line tool on this engine: Debian's, which is the oldest that talks to both.
    pub(crate) fn docker<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Tool {
        Tool::debian("docker")
            .env("DOCKER_HOST", format!("unix://{}", self.dir.join("s").display()))
            .env("DOCKER_CONFIG", self.dir.join("config"))
            .env("DOCKER_BUILDKIT", "0")
            .args(args)
    }

    /// Imports a root file system of tests/peers/install.sh under a name.
    #[track_caller]
    pub(crate) fn import(&self, rootfs: &str, name: &str) {
        self.docker(["import"]).arg(paths::rootfs(rootfs)).arg(name).ok();
    }

    fn start(letter: char, dockerd: PathBuf, path: String, flags: &[&str]) -> Self {
        let dir = paths::scratch().keep();
        let run = std::process::id() % 65536;
        let bridge = format!("lyt{letter}{run}");
        let address = format!("10.{}.{}.1/24", if letter == 'd' { 213 } else { 214 }, run % 256);
        let mut guard = Command::new("sh");
        guard
            .args(["-c", GUARD, "guard"])
            .arg(&dir)
            .arg(&bridge)
            .arg(address)
            .arg(dockerd);
        guard
            .arg("--data-root")
            .arg(dir.join("data"))
            .arg("--exec-root")
            .arg(dir.join("exec"));
        guard
            .arg("--pidfile")
            .arg(dir.join("pid"))
            .arg("-H")
            .arg(format!("unix://{}", dir.join("s").display()));
        guard
            .arg(format!("--bridge={bridge}"))
            .args(["--insecure-registry", "127.0.0.0/8"])
            .args(flags);
        // Newer engines refuse clients as old as Debian's otherwise.
        guard.env("PATH", path).env("DOCKER_MIN_API_VERSION", "1.24");
        guard
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Ctrl-C reaches the tests alone; the end of their standard input ends the engine.
        std::os::unix::process::CommandExt::process_group(&mut guard, 0);
        let guard = guard.spawn().expect("start an engine's guard");
        let engine = Self { dir, _guard: guard };
        engine.await_start();
        engine
    }

    fn await_start(&self) {
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        while self.docker(["version"]).run().code != Some(0) {
            let log = self.dir.join("dockerd.log");
            let log = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(Instant::now() < deadline, "the engine does not start\n{}", log());
            thread::sleep(Duration::from_millis(200));
        }
    }
}
