//! Paths inside a tree that somebody else made: symbolic links in it are followed inside it and never lead out.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// How many links one path may lead through: the kernel's own limit.
const MAX_LINKS: usize = 40;

/// A directory that paths are resolved in, as if it were `/`.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    pub fn new(dir: impl Into<OwnedFd>) -> Self {
        Self(dir.into())
    }

    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Opens a path, links followed in the root.
    pub fn open_at(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        // The kernel asks to try again if the tree was renamed meanwhile.
        retry(|| rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve))
    }

    pub fn open_dir(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open_at(path, OFlags::DIRECTORY | OFlags::RDONLY)
    }

    /// The metadata of what `path` names, its last component not followed; none if it does not exist.
    pub fn stat(&self, path: &Path) -> io::Result<Option<Stat>> {
        match self.open_at(path, OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(file) => Ok(Some(rustix::fs::fstat(file)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        let link = self.open_at(path, OFlags::PATH | OFlags::NOFOLLOW)?;
        let target = rustix::fs::readlinkat(link, "", Vec::new())?;
        Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    /// A whole file, or none if there is none; at most `limit` bytes.
    pub fn read_file(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        use std::io::Read;
        let file = match self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
            Ok(file) => std::fs::File::from(file),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if !file.metadata()?.is_file() {
            return Ok(None);
        }
        let mut data = Vec::new();
        file.take(limit + 1).read_to_end(&mut data)?;
        if data.len() as u64 > limit {
            return Err(io::Error::from(Errno::FBIG));
        }
        Ok(Some(data))
    }

    /// Where `path` leads: relative to the root, free of links and dots. Components that don't exist stay as they are.
    pub fn resolve(&self, path: &Path, follow_last: bool) -> io::Result<PathBuf> {
        let mut pending: VecDeque<OsString> = components(path);
        let mut resolved = PathBuf::new();
        let mut links = 0;
        while let Some(name) = pending.pop_front() {
            if name == ".." {
                resolved.pop();
                continue;
            }
            let next = resolved.join(&name);
            let is_link = match self.stat_canonical(&next)? {
                Some(stat) => super::attributes::file_type(&stat).is_symlink(),
                None => false,
            };
            if !is_link || (pending.is_empty() && !follow_last) {
                resolved = next;
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::LOOP.into());
            }
            let target = self.read_link(&next)?;
            if target.is_absolute() {
                resolved = PathBuf::new();
            }
            for name in components(&target).into_iter().rev() {
                pending.push_front(name);
            }
        }
        Ok(resolved)
    }

    /// Makes every directory of a canonical path that is missing; `made` sees each new one.
    pub fn make_dirs(
        &self,
        canonical: &Path,
        mode: u32,
        mut made: impl FnMut(&Path, BorrowedFd<'_>) -> io::Result<()>,
    ) -> io::Result<OwnedFd> {
        let mut dir = self.open_dir(Path::new(""))?;
        let mut path = PathBuf::new();
        for name in canonical.components() {
            path.push(name);
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let name: &OsStr = name.as_os_str();
            dir = match rustix::fs::openat(&dir, name, flags, Mode::empty()) {
                Err(Errno::NOENT) => {
                    rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(mode))?;
                    let new = rustix::fs::openat(&dir, name, flags, Mode::empty())?;
                    rustix::fs::fchmod(&new, Mode::from_raw_mode(mode))?;
                    made(&path, new.as_fd())?;
                    new
                }
                other => other?,
            };
        }
        Ok(dir)
    }

    /// As [`Root::stat`] for a path whose parents are known to be directories or absent.
    fn stat_canonical(&self, path: &Path) -> io::Result<Option<Stat>> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // With O_PATH and O_NOFOLLOW a trailing link would be opened itself, but NO_SYMLINKS refuses it all the same.
        match retry(|| rustix::fs::openat2(&self.0, path, flags, Mode::empty(), resolve)) {
            Ok(file) => Ok(Some(rustix::fs::fstat(file)?)),
            Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => self.stat(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn components(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("usr/lib")).unwrap();
        symlink("usr/lib", dir.path().join("lib")).unwrap();
        symlink("/usr", dir.path().join("abs")).unwrap();
        symlink("../../../../etc", dir.path().join("usr/out")).unwrap();
        symlink("loop", dir.path().join("loop")).unwrap();
        dir
    }

    fn resolve(path: &str) -> io::Result<String> {
        let dir = tree();
        let root = Root::open(dir.path()).unwrap();
        root.resolve(Path::new(path), true)
            .map(|path| path.to_string_lossy().into_owned())
    }

    #[test]
    fn links_stay_inside() {
        assert_eq!(resolve("/lib/x").unwrap(), "usr/lib/x");
        assert_eq!(resolve("abs/lib/../new").unwrap(), "usr/new");
        assert_eq!(resolve("usr/out/passwd").unwrap(), "etc/passwd");
        assert_eq!(resolve("../../x").unwrap(), "x");
        assert_eq!(
            resolve("loop/x").unwrap_err().raw_os_error(),
            Some(Errno::LOOP.raw_os_error())
        );
    }

    #[test]
    fn the_last_link_is_kept_if_asked() {
        let dir = tree();
        let root = Root::open(dir.path()).unwrap();
        assert_eq!(root.resolve(Path::new("abs"), false).unwrap(), Path::new("abs"));
        assert!(
            super::super::attributes::file_type(&root.stat(Path::new("abs")).unwrap().unwrap()).is_symlink()
        );
    }

    #[test]
    fn directories_are_made_where_they_are_missing() {
        let dir = tree();
        let root = Root::open(dir.path()).unwrap();
        let mut made = Vec::new();
        let record = |path: &Path, _: BorrowedFd<'_>| {
            made.push(path.to_owned());
            Ok(())
        };
        root.make_dirs(Path::new("usr/a/b"), 0o755, record).unwrap();
        assert_eq!(made, [Path::new("usr/a"), Path::new("usr/a/b")]);
        assert!(
            root.make_dirs(Path::new("lib/a"), 0o755, |_, _| Ok(())).is_err(),
            "a link is no directory"
        );
    }
}
