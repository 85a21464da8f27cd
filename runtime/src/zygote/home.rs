//! The zygote's own mount namespace: a tiny read-only root that holds what steps are built from.
//!
//! ```text
//! /dev/{null,zero,full,random,urandom,tty}   the machine's, checked by device number
//! /empty                                     an empty directory, to cover masked directories
//! /root                                      where a step attaches its root file system
//! ```
//!
//! Each step copies this namespace instead of the machine's, which may have hundreds of mounts, and none of
//! the machine's files has a path in a step even before its own root is in place.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use crate::init::filesystem::{self, Attributes};
use crate::sys;

/// Devices every step has: name, major, minor.
pub(crate) const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
pub(crate) const EMPTY: &str = "/empty";
pub(crate) const ROOT: &str = "/root";

/// Moves this process into its private root.
pub(crate) fn enter() -> Result<(), HomeError> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).during("make a mount namespace")?;
    let none: Option<&str> = None;
    nix::mount::mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .during("make mounts private")?;
    let attributes = Attributes::NOSUID | Attributes::NODEV | Attributes::NOEXEC;
    let root =
        filesystem::make("tmpfs", &[("mode", "755"), ("size", "64k")], attributes).during("make a tmpfs")?;
    let devices = open_devices()?;
    for directory in ["dev", "empty", "root"] {
        rustix::fs::mkdirat(&root, directory, Mode::from_raw_mode(0o755)).during("make directories")?;
    }
    rustix::mount::move_mount(&root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .during("attach the private root")?;
    for (name, device) in devices {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let path = format!("dev/{name}");
        let target = rustix::fs::openat(&root, &path, flags, Mode::from_raw_mode(0o666))
            .during("make a device's mount point")?;
        filesystem::attach(&device, &target).during("mount a device")?;
    }
    sys::mount_setattr(
        root.as_fd(),
        u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits()),
        0,
    )
    .during("make the private root read-only")?;
    rustix::process::fchdir(&root).during("enter the private root")?;
    nix::unistd::pivot_root(".", ".").during("pivot into the private root")?;
    nix::mount::umount2(".", MntFlags::MNT_DETACH).during("leave the machine's root")?;
    rustix::process::chdir("/").during("enter the private root")
}

fn open_devices() -> Result<Vec<(&'static str, OwnedFd)>, HomeError> {
    let open = |(name, major, minor): (&'static str, u32, u32)| {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let device = rustix::mount::open_tree(CWD, format!("/dev/{name}"), flags).during("open a device")?;
        let stat = rustix::fs::fstat(&device).during("check a device")?;
        let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && stat.st_rdev == rustix::fs::makedev(major, minor);
        if !is_device {
            return Err(rustix::io::Errno::NODEV).during("check a device of /dev");
        }
        // Read-only keeps a command from changing the machine's node (mode, owner, times); a device is written to
        // all the same.
        let attributes = Attributes::NOSUID | Attributes::NOEXEC | Attributes::RDONLY;
        sys::mount_setattr(device.as_fd(), attributes.bits(), Attributes::NODEV.bits())
            .during("set a device's mount attributes")?;
        Ok((name, device))
    };
    DEVICES.into_iter().map(open).collect()
}

#[derive(Debug, thiserror::Error)]
#[error("{operation}: {source}")]
pub(crate) struct HomeError {
    operation: &'static str,
    source: io::Error,
}

trait During<T> {
    fn during(self, operation: &'static str) -> Result<T, HomeError>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, operation: &'static str) -> Result<T, HomeError> {
        self.map_err(|source| HomeError {
            operation,
            source: source.into(),
        })
    }
}
