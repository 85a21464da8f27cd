//! Mounts as descriptors: made detached, attached onto descriptors, so that no path is looked up twice.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

/// Attributes of one mount (`MOUNT_ATTR_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes(MountAttrFlags);

impl Attributes {
    pub(crate) const RDONLY: Self = Self(MountAttrFlags::MOUNT_ATTR_RDONLY);
    pub(crate) const NOSUID: Self = Self(MountAttrFlags::MOUNT_ATTR_NOSUID);
    pub(crate) const NODEV: Self = Self(MountAttrFlags::MOUNT_ATTR_NODEV);
    pub(crate) const NOEXEC: Self = Self(MountAttrFlags::MOUNT_ATTR_NOEXEC);

    pub(crate) fn bits(self) -> u64 {
        u64::from(self.0.bits())
    }
}

impl std::ops::BitOr for Attributes {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A new file system, mounted nowhere yet.
pub(crate) fn make(kind: &str, options: &[(&str, &str)], attributes: Attributes) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        match *value {
            "" => rustix::mount::fsconfig_set_flag(&context, *key)?,
            value => rustix::mount::fsconfig_set_string(&context, *key, value)?,
        }
    }
    rustix::mount::fsconfig_create(&context)?;
    Ok(rustix::mount::fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes.0,
    )?)
}

/// A detached copy of the mount at an absolute path of this process's own root.
pub(crate) fn clone_path(path: &str) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(rustix::mount::open_tree(CWD, path, flags)?)
}

/// A detached copy of what is at `place`.
pub(crate) fn clone_place(place: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    Ok(rustix::mount::open_tree(place, "", flags)?)
}

/// Covers `place` with `mount`.
pub(crate) fn attach(mount: impl AsFd, place: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", place, "", flags)?)
}

/// How the directories of a path may be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    /// None of them may be a symbolic link: paths below /proc, /sys and /dev, which an image could redirect.
    Refused,
    /// Followed as a process inside the root would.
    InRoot,
}

/// Opens a path below `root` without following its last component, for mounting over it.
pub(crate) fn place(root: BorrowedFd<'_>, path: &str, links: Links) -> io::Result<OwnedFd> {
    let resolve = match links {
        Links::Refused => ResolveFlags::NO_SYMLINKS | ResolveFlags::IN_ROOT,
        Links::InRoot => ResolveFlags::NO_MAGICLINKS | ResolveFlags::IN_ROOT,
    };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // An absolute path is relative to `root` with IN_ROOT.
    Ok(rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)?)
}
