//! Whether this process may do what steps need: each operation tried, in a way that leaves nothing.
//!
//! Tried, not looked up: versions and capabilities don't tell what a security module, a container's filter or
//! a read-only /proc/sys will refuse.

use std::fmt;
use std::io;

use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use rustix::fs::{CWD, Mode};
use rustix::mount::MoveMountFlags;
use rustix::thread::CapabilitySet;

use crate::init::filesystem::{self, Attributes};
use crate::{network, zygote};

/// What builds on this machine lack.
#[derive(Debug, thiserror::Error)]
pub struct MissingPermissions {
    pub missing: Vec<MissingPermission>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingPermission {
    /// What can't be done.
    pub operation: String,
    /// Why, in the kernel's words.
    pub reason: String,
    /// What to change.
    pub remedy: &'static str,
}

impl fmt::Display for MissingPermissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RUN steps can't run here: ")?;
        for (index, missing) in self.missing.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{missing}")?;
        }
        Ok(())
    }
}

impl fmt::Display for MissingPermission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} ({}): {}", self.operation, self.reason, self.remedy)
    }
}

const AS_ROOT: &str = "run the server as root, or in a container started with --privileged (which needs only --cap-add SYS_ADMIN \
     --cap-add NET_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
     --security-opt systempaths=unconfined where that is too much)";
const NETWORK: &str = "give the server CAP_NET_ADMIN and a kernel with bridge, veth and nf_tables";
const OVERLAY: &str = "give the server CAP_SYS_ADMIN and a kernel of 5.14 or later with overlayfs";
const SYSCTL: &str = "set net.ipv4.ip_forward=1 on the machine, or make /proc/sys writable for the server";
const DEVICES: &str = "give the server's /dev the usual six devices";

/// Rights used between clone and execve, and by snapshots and layers.
const NEEDED: [(&str, CapabilitySet); 10] = [
    ("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN),
    ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
    ("CAP_SETUID", CapabilitySet::SETUID),
    ("CAP_SETGID", CapabilitySet::SETGID),
    ("CAP_SETPCAP", CapabilitySet::SETPCAP),
    ("CAP_CHOWN", CapabilitySet::CHOWN),
    ("CAP_DAC_OVERRIDE", CapabilitySet::DAC_OVERRIDE),
    ("CAP_FOWNER", CapabilitySet::FOWNER),
    ("CAP_MKNOD", CapabilitySet::MKNOD),
    ("CAP_KILL", CapabilitySet::KILL),
];

/// Tries everything in a thread of its own, whose namespaces end with it.
pub fn probe() -> Result<(), MissingPermissions> {
    let thread = std::thread::Builder::new().name("probe".into()).spawn(try_all);
    let missing = match thread.map(std::thread::JoinHandle::join) {
        Ok(Ok(missing)) => missing,
        Ok(Err(_)) => vec![missing("try the operations", "panic", AS_ROOT)],
        Err(error) => vec![missing("start a thread", error, AS_ROOT)],
    };
    if missing.is_empty() {
        Ok(())
    } else {
        Err(MissingPermissions { missing })
    }
}

fn missing(operation: &str, reason: impl fmt::Display, remedy: &'static str) -> MissingPermission {
    MissingPermission {
        operation: operation.to_owned(),
        reason: reason.to_string(),
        remedy,
    }
}

fn try_all() -> Vec<MissingPermission> {
    let mut found = Vec::new();
    let mut note = |operation: &str, result: io::Result<()>, remedy: &'static str| {
        if let Err(error) = &result {
            found.push(missing(operation, error, remedy));
        }
        result.is_ok()
    };
    note("hold the capabilities of root", capabilities(), AS_ROOT);
    note("let the machine forward packets", network::may_forward(), SYSCTL);
    // The rest is tried inside; without namespaces of its own it would happen to the machine.
    if note("make namespaces", namespaces(), AS_ROOT) {
        note("mount an overlay file system", overlay(), OVERLAY);
        note("mount /proc, /sys and /dev", kernel_file_systems(), AS_ROOT);
        note("bind devices", devices(), DEVICES);
        note(
            "make a bridge with address translation",
            network::try_bridge(),
            NETWORK,
        );
    }
    found
}

fn capabilities() -> io::Result<()> {
    let have = rustix::thread::capabilities(None)?.effective;
    let lacking: Vec<_> = NEEDED
        .iter()
        .filter(|(_, set)| !have.contains(*set))
        .map(|(name, _)| *name)
        .collect();
    if lacking.is_empty() {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("without {}", lacking.join(", ")),
    ))
}

fn namespaces() -> io::Result<()> {
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP
        | CloneFlags::CLONE_NEWNET;
    nix::sched::unshare(all)?;
    let none: Option<&str> = None;
    Ok(nix::mount::mount(
        none,
        "/",
        none,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        none,
    )?)
}

/// On a tmpfs in this thread's mount namespace.
fn overlay() -> io::Result<()> {
    let memory = filesystem::make("tmpfs", &[], Attributes::NODEV)?;
    for directory in ["lower", "upper", "work"] {
        rustix::fs::mkdirat(&memory, directory, Mode::from_raw_mode(0o755))?;
    }
    let place = std::env::temp_dir();
    rustix::mount::move_mount(&memory, "", CWD, &place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    let path = |name: &str| place.join(name).to_string_lossy().into_owned();
    let (lower, upper, work) = (path("lower"), path("upper"), path("work"));
    let options = [
        ("lowerdir", &*lower),
        ("upperdir", &*upper),
        ("workdir", &*work),
        ("userxattr", ""),
    ];
    filesystem::make("overlay", &options, Attributes::NODEV)?;
    Ok(())
}

fn kernel_file_systems() -> io::Result<()> {
    let attributes = Attributes::NOSUID | Attributes::NOEXEC;
    for (kind, options) in [
        ("proc", &[][..]),
        ("sysfs", &[]),
        ("mqueue", &[]),
        ("devpts", &[("newinstance", "")]),
    ] {
        filesystem::make(kind, options, attributes)?;
    }
    Ok(())
}

fn devices() -> io::Result<()> {
    for (name, ..) in zygote::DEVICES {
        filesystem::clone_path(&format!("/dev/{name}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_lacks_nothing_and_nothing_stays() {
        let links = || std::fs::read_dir("/sys/class/net").unwrap().count();
        let before = (links(), std::fs::read_link("/proc/thread-self/ns/mnt").unwrap());
        probe().unwrap();
        assert_eq!(
            before,
            (links(), std::fs::read_link("/proc/thread-self/ns/mnt").unwrap())
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let thread = std::thread::spawn(|| {
            let mut sets = rustix::thread::capabilities(None).unwrap();
            let lost = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
            sets.effective &= !lost;
            sets.permitted &= !lost;
            rustix::thread::set_capabilities(None, sets).unwrap();
            probe().unwrap_err()
        });
        let text = thread.join().unwrap().to_string();
        assert!(text.contains("without CAP_SYS_ADMIN, CAP_NET_ADMIN"), "{text}");
        assert!(
            text.contains("cannot make namespaces (Operation not permitted"),
            "{text}"
        );
        assert!(text.contains("--privileged"), "{text}");
    }
}
