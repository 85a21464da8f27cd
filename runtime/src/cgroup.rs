//! Control groups: one leaf for each step, in whichever hierarchies this machine has.
//!
//! A leaf is for killing and for limits. The process namespace kills the tree too, so a machine that lets us
//! make no leaf is served without one; a limit that can't be set is an error.
//!
//! Version 2, also beside version 1 and without controllers, is preferred: it can kill, and a process can be
//! cloned into it. Version 1 hierarchies are used for limits whose controller lives there, and the freezer
//! for killing where there is no version 2.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Once, OnceLock};
use std::time::{Duration, Instant};

use crate::RuntimeError;
use crate::spec::Cgroup;

/// How long a leaf may stay busy after its last process has ended.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(2);
const REMOVE_INTERVAL: Duration = Duration::from_millis(1);

/// Where the hierarchies are mounted.
#[derive(Debug, Default)]
pub(crate) struct Hierarchies {
    v2: Option<PathBuf>,
    /// By controller.
    v1: BTreeMap<String, PathBuf>,
    /// There is nothing but version 2, at the usual place.
    pub(crate) unified_only: bool,
}

pub(crate) fn hierarchies() -> &'static Hierarchies {
    static FOUND: OnceLock<Hierarchies> = OnceLock::new();
    FOUND.get_or_init(|| Hierarchies::parse(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()))
}

impl Hierarchies {
    fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((before, after)) = line.split_once(" - ") else {
                continue;
            };
            let Some(mount) = before.split(' ').nth(4).map(PathBuf::from) else {
                continue;
            };
            let mut after = after.split(' ');
            match (after.next(), after.nth(1)) {
                (Some("cgroup2"), _) => found.v2 = found.v2.or(Some(mount)),
                (Some("cgroup"), Some(options)) => {
                    for option in options.split(',') {
                        found.v1.entry(option.to_owned()).or_insert_with(|| mount.clone());
                    }
                }
                _ => {}
            }
        }
        found.unified_only = found.v1.is_empty() && found.v2.as_deref() == Some(Path::new("/sys/fs/cgroup"));
        found
    }
}

/// A step's own groups. Removed explicitly, once the step has ended.
#[derive(Debug)]
pub(crate) struct Leaf {
    v2: Option<(PathBuf, File)>,
    v1: Vec<PathBuf>,
    procs: Vec<File>,
}

impl Leaf {
    /// None: this machine lets us have no group, and none is needed.
    pub(crate) fn create(config: &Cgroup) -> Result<Option<Self>, RuntimeError> {
        Self::create_in(hierarchies(), config)
    }

    fn create_in(hierarchies: &Hierarchies, config: &Cgroup) -> Result<Option<Self>, RuntimeError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = config
            .parent
            .join(format!("step-{}-{number}", std::process::id()));
        let mut leaf = Self {
            v2: None,
            v1: Vec::new(),
            procs: Vec::new(),
        };
        let limits = limits(config);
        static SWEEP: Once = Once::new();
        SWEEP.call_once(|| {
            let mounts = hierarchies.v1.values().chain(&hierarchies.v2);
            mounts.for_each(|mount| remove_stale(&mount.join(&config.parent)));
        });
        if let Some(mount) = &hierarchies.v2 {
            let directory = mount.join(&path);
            if !limits.is_empty() {
                enable_controllers(mount, &config.parent, &limits);
            }
            let opened = fs::create_dir_all(&directory).and_then(|()| File::open(&directory));
            match opened {
                Ok(file) => leaf.v2 = Some((directory, file)),
                Err(error) => tracing::debug!(%error, path = %directory.display(), "no cgroup v2 for steps"),
            }
        }
        if leaf.v2.is_none()
            && let Some(mount) = hierarchies.v1.get("freezer")
        {
            // Only for killing: going without is possible.
            let _ = leaf.join_v1(mount.join(&path));
        }
        for limit in limits {
            if let Err(error) = leaf.apply(hierarchies, &path, &limit) {
                leaf.remove();
                return Err(error);
            }
        }
        Ok((leaf.v2.is_some() || !leaf.v1.is_empty()).then_some(leaf))
    }

    fn apply(&mut self, hierarchies: &Hierarchies, path: &Path, limit: &Limit) -> Result<(), RuntimeError> {
        if let Some((directory, _)) = &self.v2 {
            let file = directory.join(limit.v2.0);
            if file.exists() {
                return write(&file, &limit.v2.1);
            }
        }
        let mount = hierarchies.v1.get(limit.controller);
        let mount = mount.ok_or(RuntimeError::CgroupLimit {
            limit: limit.controller,
        })?;
        let directory = mount.join(path);
        if !self.v1.contains(&directory) {
            self.join_v1(directory.clone())
                .map_err(|source| RuntimeError::Cgroup {
                    path: directory.clone(),
                    source,
                })?;
        }
        limit
            .v1
            .iter()
            .try_for_each(|(name, value)| write(&directory.join(name), value))
    }

    fn join_v1(&mut self, directory: PathBuf) -> io::Result<()> {
        fs::create_dir_all(&directory)?;
        self.procs.push(
            OpenOptions::new()
                .write(true)
                .open(directory.join("cgroup.procs"))?,
        );
        self.v1.push(directory);
        Ok(())
    }

    pub(crate) fn v2_directory(&self) -> Option<BorrowedFd<'_>> {
        self.v2.as_ref().map(|(_, file)| file.as_fd())
    }

    pub(crate) fn v1_procs(&self) -> Vec<BorrowedFd<'_>> {
        self.procs.iter().map(AsFd::as_fd).collect()
    }

    pub(crate) fn kill(&self) {
        if let Some((directory, _)) = &self.v2 {
            // Since Linux 5.14; the process namespace is killed in any case.
            let _ = fs::write(directory.join("cgroup.kill"), "1");
        }
        for directory in &self.v1 {
            kill_v1(directory);
        }
    }

    pub(crate) fn ran_out_of_memory(&self) -> bool {
        let v2 = self
            .v2
            .iter()
            .map(|(directory, _)| directory.join("memory.events"));
        let v1 = self
            .v1
            .iter()
            .map(|directory| directory.join("memory.oom_control"));
        v2.chain(v1).any(|file| {
            let text = fs::read_to_string(file).unwrap_or_default();
            text.lines()
                .any(|line| matches!(line.split_once(' '), Some(("oom_kill", count)) if count != "0"))
        })
    }

    /// Removes the directories, which the kernel allows a moment after the last process has ended.
    pub(crate) fn remove(self) {
        drop(self.procs);
        let directories = self.v2.into_iter().map(|(directory, _)| directory).chain(self.v1);
        for directory in directories {
            let deadline = Instant::now() + REMOVE_TIMEOUT;
            loop {
                match fs::remove_dir(&directory) {
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                        std::thread::sleep(REMOVE_INTERVAL);
                    }
                    Err(error) => {
                        tracing::warn!(%error, path = %directory.display(), "could not remove a cgroup");
                        break;
                    }
                    Ok(()) => break,
                }
            }
        }
    }
}

/// Removes leaves of workers that are no more.
fn remove_stale(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix("step-")?.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // One that is busy is left to the next worker.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

struct Limit {
    controller: &'static str,
    /// File and value; and the same for version 1, in the order they have to be written.
    v2: (&'static str, String),
    v1: Vec<(&'static str, String)>,
}

fn limits(config: &Cgroup) -> Vec<Limit> {
    const PERIOD_US: u64 = 100_000;
    let memory = config.memory_max_bytes.map(|bytes| Limit {
        controller: "memory",
        v2: ("memory.max", bytes.to_string()),
        v1: vec![("memory.limit_in_bytes", bytes.to_string())],
    });
    let pids = config.pids_max.map(|count| Limit {
        controller: "pids",
        v2: ("pids.max", count.to_string()),
        v1: vec![("pids.max", count.to_string())],
    });
    let cpu = config.cpu_max_millis.map(|millis| {
        let quota = millis * PERIOD_US / 1000;
        Limit {
            controller: "cpu",
            v2: ("cpu.max", format!("{quota} {PERIOD_US}")),
            v1: vec![
                ("cpu.cfs_period_us", PERIOD_US.to_string()),
                ("cpu.cfs_quota_us", quota.to_string()),
            ],
        }
    });
    [memory, pids, cpu].into_iter().flatten().collect()
}

/// Lets groups below `parent` have the controllers; where that is refused, setting the limit will fail.
fn enable_controllers(mount: &Path, parent: &Path, limits: &[Limit]) {
    let _ = fs::create_dir_all(mount.join(parent));
    let mut directory = mount.to_path_buf();
    let mut components = parent.components();
    loop {
        for limit in limits {
            let _ = fs::write(
                directory.join("cgroup.subtree_control"),
                format!("+{}", limit.controller),
            );
        }
        let Some(component) = components.next() else { break };
        directory.push(component);
    }
}

fn kill_v1(directory: &Path) {
    let state = directory.join("freezer.state");
    let frozen = fs::write(&state, "FROZEN").is_ok();
    for pid in fs::read_to_string(directory.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
    {
        if let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    if frozen {
        let _ = fs::write(&state, "THAWED");
    }
}

fn write(file: &Path, value: &str) -> Result<(), RuntimeError> {
    fs::write(file, value).map_err(|source| RuntimeError::Cgroup {
        path: file.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_a_hybrid_machine() {
        let found = Hierarchies::parse(
            "30 24 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             31 24 0:27 / /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw\n",
        );
        assert_eq!(found.v2.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(found.v1["cpuacct"], Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert!(!found.unified_only);
    }

    #[test]
    fn a_limit_without_its_controller_is_refused_by_name() {
        let config = Cgroup {
            pids_max: Some(10),
            ..Cgroup::default()
        };
        let error = Leaf::create_in(&Hierarchies::default(), &config).unwrap_err();
        assert!(matches!(error, RuntimeError::CgroupLimit { limit: "pids" }));
        let none = Leaf::create_in(&Hierarchies::default(), &Cgroup::default()).unwrap();
        assert!(
            none.is_none(),
            "without limits a machine without hierarchies is served"
        );
    }
}
