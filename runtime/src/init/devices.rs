//! /dev: an own tmpfs with six devices, pseudo-terminals, shared memory and message queues.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};

use super::filesystem::{self, Attributes, Links};
use super::root::{New, mount_directory};
use super::{Named, SetupError};
use crate::zygote;

const DEV_SIZE: &str = "64m";

const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];

/// Returns /dev itself.
pub(super) fn build(root: BorrowedFd<'_>, shm_size_bytes: u64) -> Result<OwnedFd, SetupError> {
    const STEP: &str = "fill /dev";
    let plain = Attributes::NOSUID | Attributes::NODEV | Attributes::NOEXEC;
    let options = [("mode", "755"), ("size", DEV_SIZE)];
    // NODEV: the command may make nodes (MKNOD is among Docker's capabilities) but not open them. The six are
    // mounts of their own.
    let dev = mount_directory(
        root,
        "/dev",
        ("tmpfs", &options, Attributes::NOSUID | Attributes::NODEV),
    )?;
    for (target, name) in LINKS {
        rustix::fs::symlinkat(target, &dev, name).named(STEP, name)?;
    }
    for (name, ..) in zygote::DEVICES {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let place = rustix::fs::openat(&dev, name, flags, Mode::from_raw_mode(0o666)).named(STEP, name)?;
        let device = filesystem::clone_path(&format!("/dev/{name}")).named(STEP, name)?;
        filesystem::attach(&device, &place).named(STEP, name)?;
    }
    let terminals = [
        ("newinstance", ""),
        ("ptmxmode", "0666"),
        ("mode", "0620"),
        ("gid", "5"),
    ];
    let without_exec = Attributes::NOSUID | Attributes::NOEXEC;
    below(&dev, "pts", ("devpts", &terminals, without_exec))?;
    below(&dev, "mqueue", ("mqueue", &[], plain))?;
    let size = shm_size_bytes.to_string();
    let shm = [("mode", "1777"), ("size", &*size)];
    below(&dev, "shm", ("tmpfs", &shm, plain))?;
    Ok(dev)
}

/// Makes what `source` can be mounted on at a path below /dev, which no image has files in.
pub(super) fn make_place(dev: &OwnedFd, path: &str, source: &OwnedFd) -> io::Result<()> {
    let is_directory = FileType::from_raw_mode(rustix::fs::fstat(source)?.st_mode) == FileType::Directory;
    let (directories, name) = path.rsplit_once('/').unwrap_or(("", path));
    let mut at = rustix::io::fcntl_dupfd_cloexec(dev, 3)?;
    for directory in directories.split('/').filter(|directory| !directory.is_empty()) {
        make_directory(&at, directory)?;
        // Not followed, and "..", which can't be made, not reached.
        at = filesystem::place(at.as_fd(), directory, Links::Refused)?;
    }
    if is_directory {
        return Ok(make_directory(&at, name)?);
    }
    let flags = OFlags::CREATE | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(&at, name, flags, Mode::from_raw_mode(0o644))?;
    Ok(())
}

fn make_directory(at: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    match rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o755)) {
        Err(rustix::io::Errno::EXIST) => Ok(()),
        result => result,
    }
}

/// Mounts a new file system over a new directory of /dev.
fn below(dev: &OwnedFd, name: &str, new: New<'_>) -> Result<(), SetupError> {
    let step = format!("mount /dev/{name}");
    rustix::fs::mkdirat(dev, name, Mode::from_raw_mode(0o755)).named(&step, "mkdir")?;
    let place = filesystem::place(dev.as_fd(), name, Links::Refused).named(&step, "open")?;
    let (kind, options, attributes) = new;
    let mount = filesystem::make(kind, options, attributes).named(&step, kind)?;
    filesystem::attach(&mount, &place).named(&step, "move_mount")
}
