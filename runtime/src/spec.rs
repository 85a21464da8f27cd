//! What to run: a serialisable value without closures, with the names of the OCI runtime specification.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Search path of commands whose environment has none: Docker's.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Host name every step sees: constant, because a command may write it into the image.
pub const DEFAULT_HOSTNAME: &str = "layeryard";

/// Size of /dev/shm: Docker's.
pub(crate) const DEFAULT_SHM_SIZE_BYTES: u64 = 64 << 20;

/// Soft and hard limit of open files; the hard one is lowered to what this process may hand out.
const NOFILE_SOFT: u64 = 1024;
const NOFILE_HARD: u64 = 1_048_576;

const MASKED_PATHS: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READONLY_PATHS: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// One process to run in namespaces of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The command; the first is looked up in the PATH of `env`, inside the root.
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Absolute; has to exist.
    pub cwd: String,
    pub user: User,
    pub hostname: String,
    pub network: Network,
    /// Beside /proc, /sys and /dev, which every step has.
    pub mounts: Vec<Mount>,
    /// Permitted and effective set of root, and the bounding set of all; cut to what this process has.
    pub capabilities: Vec<Capability>,
    pub rlimits: Vec<Rlimit>,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    /// None: the process namespace alone holds the tree.
    pub cgroup: Option<Cgroup>,
    pub shm_size_bytes: u64,
    pub seccomp: Seccomp,
}

impl Spec {
    /// A step with Docker's defaults: `PATH` and `HOME` are added where `env` lacks them.
    pub fn run_step(
        args: Vec<String>,
        mut env: Vec<(String, String)>,
        cwd: impl Into<String>,
        user: User,
    ) -> Self {
        let has = |env: &[(String, String)], name: &str| env.iter().any(|(key, _)| key == name);
        if !has(&env, "PATH") {
            env.push(("PATH".into(), DEFAULT_PATH.into()));
        }
        if let Some(home) = user.home.clone().filter(|_| !has(&env, "HOME")) {
            env.push(("HOME".into(), home));
        }
        let owned = |paths: &[&str]| paths.iter().map(ToString::to_string).collect();
        Self {
            args,
            env,
            cwd: cwd.into(),
            user,
            hostname: DEFAULT_HOSTNAME.into(),
            network: Network::None,
            mounts: Vec::new(),
            capabilities: DEFAULT_CAPABILITIES.to_vec(),
            rlimits: vec![Rlimit {
                kind: RlimitKind::Nofile,
                soft: NOFILE_SOFT,
                hard: NOFILE_HARD,
            }],
            masked_paths: owned(MASKED_PATHS),
            readonly_paths: owned(READONLY_PATHS),
            cgroup: Some(Cgroup::default()),
            shm_size_bytes: DEFAULT_SHM_SIZE_BYTES,
            seccomp: Seccomp::Default,
        }
    }
}

/// Who runs the command. [`crate::user::resolve_user`] makes one from a Dockerfile's USER.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
    pub umask: u32,
    /// Home directory by the image's passwd file.
    pub home: Option<String>,
}

impl User {
    /// Root without looking at any file.
    pub fn root() -> Self {
        Self {
            uid: 0,
            gid: 0,
            additional_gids: Vec::new(),
            umask: 0o022,
            home: Some("/root".into()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// A namespace with nothing but a loopback device.
    None,
    /// A namespace with one address on this worker's bridge: out through NAT, nothing of the host.
    Bridge,
}

/// Which system calls are refused whatever the capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seccomp {
    /// New namespaces, mounts, keys, VM sockets and kernel interfaces with a history.
    Default,
    Unconfined,
}

/// A mount over a path that exists in the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside the root. Its directories are resolved inside the root; the last component is
    /// covered as it is, also when it is a symbolic link.
    pub destination: String,
    pub kind: MountKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
#[non_exhaustive]
pub enum MountKind {
    /// A file or directory of the host, opened by the worker; never with devices or set-user-id programs.
    Bind { source: PathBuf, read_only: bool },
    /// An empty file system in memory.
    Tmpfs { size_bytes: u64, mode: u32 },
}

impl Mount {
    /// A file of the host over a file of the root, such as resolv.conf.
    pub fn bind(source: impl Into<PathBuf>, destination: impl Into<String>, read_only: bool) -> Self {
        Self {
            destination: destination.into(),
            kind: MountKind::Bind {
                source: source.into(),
                read_only,
            },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    pub kind: RlimitKind,
    pub soft: u64,
    pub hard: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RlimitKind {
    Nofile,
    Nproc,
    Core,
    Fsize,
    Memlock,
    Stack,
}

/// Where the step's own control group is made, and its limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Path below the mount of each hierarchy; made if absent.
    pub parent: PathBuf,
    pub memory_max_bytes: Option<u64>,
    pub pids_max: Option<u64>,
    /// Processor time in thousandths of one core.
    pub cpu_max_millis: Option<u64>,
}

impl Default for Cgroup {
    fn default() -> Self {
        Self {
            parent: "layeryard".into(),
            memory_max_bytes: None,
            pids_max: None,
            cpu_max_millis: None,
        }
    }
}

/// Docker's fourteen.
pub const DEFAULT_CAPABILITIES: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

macro_rules! capabilities {
    ($($name:ident = $number:literal),+ $(,)?) => {
        /// A capability by the kernel's number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
        pub enum Capability { $($name = $number),+ }
    };
}

capabilities! {
    Chown = 0, DacOverride = 1, DacReadSearch = 2, Fowner = 3, Fsetid = 4, Kill = 5, Setgid = 6, Setuid = 7,
    Setpcap = 8, LinuxImmutable = 9, NetBindService = 10, NetBroadcast = 11, NetAdmin = 12, NetRaw = 13,
    IpcLock = 14, IpcOwner = 15, SysModule = 16, SysRawio = 17, SysChroot = 18, SysPtrace = 19, SysPacct = 20,
    SysAdmin = 21, SysBoot = 22, SysNice = 23, SysResource = 24, SysTime = 25, SysTtyConfig = 26, Mknod = 27,
    Lease = 28, AuditWrite = 29, AuditControl = 30, Setfcap = 31, MacOverride = 32, MacAdmin = 33, Syslog = 34,
    WakeAlarm = 35, BlockSuspend = 36, AuditRead = 37, Perfmon = 38, Bpf = 39, CheckpointRestore = 40,
}

impl Capability {
    pub(crate) fn bit(self) -> u64 {
        1 << (self as u64)
    }
}
