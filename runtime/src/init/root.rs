//! The root file system of a step: what is mounted into it, and how it becomes `/`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::mount::MntFlags;
use rustix::fs::{CWD, FileType, OFlags};
use rustix::mount::OpenTreeFlags;

use super::filesystem::{self, Attributes, Links};
use super::{Named, SetupError, devices};
use crate::spec::{Mount, MountKind, Spec};
use crate::{sys, zygote};

const PROC_MAGIC: i64 = 0x9fa0;
const SYSFS_MAGIC: i64 = 0x6265_6572;

/// Attributes of /proc, /sys and what lies below.
fn kernel_attributes() -> Attributes {
    Attributes::NOSUID | Attributes::NODEV | Attributes::NOEXEC
}

/// A detached mount of a file or directory of the machine, made by the worker.
pub(crate) fn open_bind(source: &Path, read_only: bool) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = rustix::mount::open_tree(CWD, source, flags)?;
    let writable = Attributes::NOSUID | Attributes::NODEV;
    let attributes = if read_only {
        writable | Attributes::RDONLY
    } else {
        writable
    };
    sys::mount_setattr(mount.as_fd(), attributes.bits(), 0)?;
    Ok(mount)
}

/// Attaches `rootfs` in the zygote's root and mounts everything into it.
pub(super) fn build(
    spec: &Spec,
    rootfs: &OwnedFd,
    binds: Vec<OwnedFd>,
    show_cgroup_v2: bool,
) -> Result<(), SetupError> {
    let root = rootfs.as_fd();
    // Programs may set the user id, as in Docker; device nodes are never opened, whoever made the mount.
    sys::mount_setattr(root, Attributes::NODEV.bits(), Attributes::NOSUID.bits())
        .named("attach the root", "mount_setattr")?;
    let home = rustix::fs::open(
        zygote::ROOT,
        OFlags::PATH | OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .named("attach the root", zygote::ROOT)?;
    filesystem::attach(root, &home).named("attach the root", "move_mount")?;

    mount_directory(root, "/proc", ("proc", &[], kernel_attributes()))?;
    let read_only = kernel_attributes() | Attributes::RDONLY;
    mount_directory(root, "/sys", ("sysfs", &[], read_only))?;
    if show_cgroup_v2 {
        mount_directory(root, "/sys/fs/cgroup", ("cgroup2", &[], read_only))?;
    }
    let dev = devices::build(root, spec.shm_size_bytes)?;
    mount_others(root, &dev, &spec.mounts, binds)?;
    for path in &spec.readonly_paths {
        make_read_only(root, path).named("make a path read-only", path)?;
    }
    for path in &spec.masked_paths {
        mask(root, path).named("mask a path", path)?;
    }
    Ok(())
}

/// Makes the root the process' own, and leaves the zygote's.
pub(super) fn pivot(rootfs: OwnedFd) -> Result<(), SetupError> {
    const STEP: &str = "pivot into the root";
    rustix::process::fchdir(&rootfs).named(STEP, "fchdir")?;
    nix::unistd::pivot_root(".", ".").named(STEP, "pivot_root")?;
    nix::mount::umount2(".", MntFlags::MNT_DETACH).named(STEP, "detach the zygote's root")?;
    rustix::process::chdir("/").named(STEP, "chdir")
}

/// A file system to make: kind, options, attributes.
pub(super) type New<'a> = (&'a str, &'a [(&'a str, &'a str)], Attributes);

/// Mounts a new file system over a directory that no symbolic link may stand for.
pub(super) fn mount_directory(root: BorrowedFd<'_>, path: &str, new: New<'_>) -> Result<OwnedFd, SetupError> {
    let step = format!("mount {path}");
    let place = filesystem::place(root, path, Links::Refused).named(
        &step,
        "the image has no such directory, or a symbolic link in its place",
    )?;
    let stat = rustix::fs::fstat(&place).named(&step, "fstat")?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(rustix::io::Errno::NOTDIR).named(&step, "the image has something else in its place");
    }
    let (kind, options, attributes) = new;
    let mount = filesystem::make(kind, options, attributes).named(&step, kind)?;
    filesystem::attach(&mount, &place).named(&step, "move_mount")?;
    Ok(mount)
}

fn mount_others(
    root: BorrowedFd<'_>,
    dev: &OwnedFd,
    mounts: &[Mount],
    binds: Vec<OwnedFd>,
) -> Result<(), SetupError> {
    let mut binds = binds.into_iter();
    for mount in mounts {
        let step = format!("mount {}", mount.destination);
        let source = match &mount.kind {
            MountKind::Bind { .. } => binds
                .next()
                .ok_or(rustix::io::Errno::BADF)
                .named(&step, "descriptor")?,
            MountKind::Tmpfs { size_bytes, mode } => {
                let (size, mode) = (size_bytes.to_string(), format!("{mode:o}"));
                let attributes = Attributes::NOSUID | Attributes::NODEV;
                filesystem::make("tmpfs", &[("size", &size), ("mode", &mode)], attributes)
                    .named(&step, "tmpfs")?
            }
        };
        if let Some(path) = mount.destination.strip_prefix("/dev/") {
            devices::make_place(dev, path, &source).named(&step, "could not make a place for it")?;
        }
        let place = filesystem::place(root, &mount.destination, Links::InRoot)
            .named(&step, "the image has nothing to mount it on")?;
        refuse_kernel_places(root, &place).named(&step, "nothing may be mounted there")?;
        filesystem::attach(&source, &place).named(&step, "move_mount")?;
    }
    Ok(())
}

/// Refuses the root itself and whatever is part of /proc or /sys: covering those would undo the masks.
fn refuse_kernel_places(root: BorrowedFd<'_>, place: &OwnedFd) -> io::Result<()> {
    let (root, stat) = (rustix::fs::fstat(root)?, rustix::fs::fstat(place)?);
    let file_system = rustix::fs::fstatfs(place)?.f_type as i64;
    let is_root = (root.st_dev, root.st_ino) == (stat.st_dev, stat.st_ino);
    if is_root || file_system == PROC_MAGIC || file_system == SYSFS_MAGIC {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    Ok(())
}

fn make_read_only(root: BorrowedFd<'_>, path: &str) -> io::Result<()> {
    let Some(place) = existing(root, path)? else {
        return Ok(());
    };
    let mount = filesystem::clone_place(place.as_fd())?;
    sys::mount_setattr(
        mount.as_fd(),
        (kernel_attributes() | Attributes::RDONLY).bits(),
        0,
    )?;
    filesystem::attach(&mount, &place)
}

fn mask(root: BorrowedFd<'_>, path: &str) -> io::Result<()> {
    let Some(place) = existing(root, path)? else {
        return Ok(());
    };
    let stat = rustix::fs::fstat(&place)?;
    let cover = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => filesystem::clone_path(zygote::EMPTY)?,
        // Checked by device number when the zygote started.
        _ => filesystem::clone_path("/dev/null")?,
    };
    filesystem::attach(&cover, &place)
}

/// None: this kernel hasn't got the path.
fn existing(root: BorrowedFd<'_>, path: &str) -> io::Result<Option<OwnedFd>> {
    match filesystem::place(root, path, Links::Refused) {
        Ok(place) => Ok(Some(place)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
