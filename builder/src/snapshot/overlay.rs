//! The overlay driver: joins directories by the new mount API into a detached mount.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use super::SnapshotError;
use super::error::IoContext;

/// What one overlay takes; the kernel's own limit is 500.
pub(super) const MAX_LOWERS: usize = 490;

/// Joins layers' directories into trees. Nothing above this trait assumes overlay mounts; a driver for places where
/// mounts are denied would copy.
pub trait Snapshotter: Send + Sync {
    /// A tree of the `lowers`, top first. Writes go to `writable`; without it the tree is read-only.
    fn join(&self, lowers: &[PathBuf], writable: Option<Writable<'_>>) -> Result<Tree, SnapshotError>;
}

/// Where a tree's changes go.
#[derive(Clone, Copy, Debug)]
pub struct Writable<'a> {
    pub upper: &'a Path,
    pub work: &'a Path,
}

/// A tree by its root directory, in no process's mount table. It is gone when the last descriptor is closed.
#[derive(Debug)]
pub struct Tree(OwnedFd);

impl Tree {
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// overlayfs with `userxattr`: one format on disk for root and rootless, and no following of redirects.
#[derive(Debug, Default)]
pub struct Overlay;

impl Snapshotter for Overlay {
    fn join(&self, lowers: &[PathBuf], writable: Option<Writable<'_>>) -> Result<Tree, SnapshotError> {
        if lowers.len() > MAX_LOWERS {
            return Err(SnapshotError::TooManyLayers {
                layers: lowers.len(),
                limit: MAX_LOWERS,
            });
        }
        let failed = |step| {
            move |errno: rustix::io::Errno| SnapshotError::Mount {
                layers: lowers.len(),
                step,
                source: errno.into(),
            }
        };
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed("fsopen"))?;
        fsconfig_set_string(&context, "source", "layeryard").map_err(failed("source"))?;
        fsconfig_set_flag(&context, "userxattr").map_err(failed("userxattr"))?;
        for key in ["index", "metacopy", "xino"] {
            fsconfig_set_string(&context, key, "off").map_err(failed(key))?;
        }
        for lower in lowers {
            set_directory(&context, "lowerdir+", lower)?.map_err(failed("lowerdir+"))?;
        }
        if let Some(Writable { upper, work }) = writable {
            fsconfig_set_flag(&context, "volatile").map_err(failed("volatile"))?;
            set_directory(&context, "upperdir", upper)?.map_err(failed("upperdir"))?;
            set_directory(&context, "workdir", work)?.map_err(failed("workdir"))?;
        }
        fsconfig_create(&context).map_err(failed("create"))?;
        let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
        if writable.is_none() {
            attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
        }
        let mount =
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(failed("fsmount"))?;
        Ok(Tree(mount))
    }
}

/// By descriptor where the kernel can (6.13), else by a path through /proc, which never outgrows the 256 bytes that a
/// string option may have.
fn set_directory(context: &OwnedFd, key: &str, path: &Path) -> Result<rustix::io::Result<()>, SnapshotError> {
    let dir = File::open(path).on("open the layer directory", path)?;
    let by_descriptor = fsconfig_set_fd(context, key, &dir);
    if by_descriptor != Err(rustix::io::Errno::INVAL) {
        return Ok(by_descriptor);
    }
    Ok(fsconfig_set_string(
        context,
        key,
        format!("/proc/self/fd/{}", dir.as_raw_fd()),
    ))
}
