//! Places to mount on, where an image has deleted those of the stub.
//!
//! A whiteout of /etc/hostname in a layer hides the stub's file too. The step gets an empty one in its own directory,
//! which is taken away again before anything looks at it: neither the layer nor the next step knows of it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::snapshot::{Root, STUB_DIRS, STUB_FILES, Tree, file_type, mtime_of, set_mtime};

const DIR_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;

/// What was made for one step.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Canonical, parents first.
    made: Vec<PathBuf>,
}

impl Places {
    /// Makes what is missing in a step's tree. Times of directories stay as they were.
    pub(super) fn make(tree: &Tree) -> io::Result<Self> {
        let root = Root::new(tree.try_clone()?.into_fd());
        let mut places = Self::default();
        for (name, is_dir) in STUB_DIRS
            .iter()
            .map(|name| (name, true))
            .chain(STUB_FILES.iter().map(|name| (name, false)))
        {
            let path = Path::new(name);
            // As the mount resolves it: the last component as it is.
            let parent = root.resolve(path.parent().unwrap_or(Path::new("")), true)?;
            let place = parent.join(path.file_name().unwrap_or_default());
            if root.stat(&place)?.is_some() {
                continue;
            }
            let made = &mut places.made;
            let dir = root.make_dirs(&parent, DIR_MODE, |path, _| {
                made.push(path.to_owned());
                Ok(())
            })?;
            keeping_time(&dir, || make_one(&dir, &place, is_dir))?;
            places.made.push(place);
        }
        Ok(places)
    }

    /// Takes away from the step's own directory what is still as it was made. The step has ended.
    pub(super) fn remove(&self, upper: &Path) -> io::Result<()> {
        let root = Root::open(upper)?;
        for path in self.made.iter().rev() {
            let Some(stat) = root.stat(path)? else { continue };
            let is_dir = file_type(&stat) == FileType::Directory;
            let is_empty_file = file_type(&stat) == FileType::RegularFile && stat.st_size == 0;
            if !is_dir && !is_empty_file {
                continue;
            }
            let dir = root.open_dir(path.parent().unwrap_or(Path::new("")))?;
            let flags = if is_dir {
                AtFlags::REMOVEDIR
            } else {
                AtFlags::empty()
            };
            keeping_time(&dir, || {
                match rustix::fs::unlinkat(&dir, path.file_name().unwrap_or_default(), flags) {
                    // The step has put something into it: it is the step's now.
                    Ok(()) | Err(Errno::NOTEMPTY) => Ok(()),
                    Err(errno) => Err(errno.into()),
                }
            })?;
        }
        Ok(())
    }
}

fn make_one(dir: &OwnedFd, place: &Path, is_dir: bool) -> io::Result<()> {
    let name = place.file_name().unwrap_or_default();
    if is_dir {
        rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(DIR_MODE))?;
        return Ok(());
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(FILE_MODE))?;
    Ok(())
}

/// Changes the content of a directory, but not its time.
fn keeping_time(dir: &OwnedFd, change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let before = mtime_of(&rustix::fs::fstat(dir)?);
    change()?;
    set_mtime(dir, b".", before)
}
