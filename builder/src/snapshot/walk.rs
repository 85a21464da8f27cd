//! What every walk over a tree does, and the walk that removes one.

use std::ffi::{CStr, OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, OFlags};
use rustix::io::Errno;

use super::inroot::Root;

/// How deep directories may be nested in what is walked: walking holds descriptors and stack for each level.
pub(crate) const MAX_TREE_DEPTH: usize = 256;

/// Refuses paths that no walk may follow further.
pub(crate) fn check_depth(path: &Path) -> io::Result<()> {
    if path.components().count() <= MAX_TREE_DEPTH {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!("directories are nested deeper than {MAX_TREE_DEPTH} levels"),
    ))
}

/// Removes a directory and all below it, links not followed, however deep it is: what is not empty is moved up first.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let root = match Root::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        root => root?,
    };
    let mut moved = 0u64;
    let mut pending: Vec<OsString> = Vec::new();
    let mut dir = root.open_dir(Path::new(""))?;
    loop {
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") || !remove_name(&dir, name)? {
                continue;
            }
            // An earlier attempt that did not end may have left names of this kind.
            let place = loop {
                let place = OsString::from(format!(".removing-{moved}"));
                moved += 1;
                let flags = rustix::fs::RenameFlags::NOREPLACE;
                match rustix::fs::renameat_with(&dir, name, &root, &place, flags) {
                    Ok(()) => break place,
                    Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno.into()),
                }
            };
            pending.push(place);
        }
        let Some(next) = pending.last().cloned() else {
            break;
        };
        match rustix::fs::unlinkat(&root, &next, AtFlags::REMOVEDIR) {
            Ok(()) => drop(pending.pop()),
            Err(Errno::NOTEMPTY) => {}
            Err(errno) => return Err(errno.into()),
        }
        dir = match pending.last() {
            Some(name) => root.open_at(
                Path::new(name),
                OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW,
            )?,
            None => root.open_dir(Path::new(""))?,
        };
    }
    std::fs::remove_dir(path)
}

/// Whether the name is a directory that has to be emptied first.
fn remove_name(dir: &OwnedFd, name: &CStr) -> io::Result<bool> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(false),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(false),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

/// The names in a directory, sorted by bytes.
pub(crate) fn names(dir: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

pub(crate) fn join(path: &Path, name: &[u8]) -> PathBuf {
    path.join(OsStr::from_bytes(name))
}

/// Enough of a path that is too long to show, to find it.
pub(crate) fn first_names(path: &Path) -> PathBuf {
    path.components().take(4).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::Mode;

    use super::*;

    #[test]
    fn a_tree_of_any_depth_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tree");
        std::fs::create_dir(&path).unwrap();
        symlink("/etc", path.join("link")).unwrap();
        std::fs::create_dir_all(path.join(".removing-0/left/over")).unwrap();
        let mut level = OwnedFd::from(std::fs::File::open(&path).unwrap());
        for _ in 0..600 {
            rustix::fs::mkdirat(&level, "d", Mode::from_raw_mode(0o700)).unwrap();
            rustix::fs::mkdirat(&level, "e", Mode::from_raw_mode(0o700)).unwrap();
            let flags = OFlags::CREATE | OFlags::WRONLY;
            rustix::fs::openat(&level, "file", flags, Mode::from_raw_mode(0o600)).unwrap();
            level = rustix::fs::openat(&level, "d", OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        remove_tree(&path).unwrap();
        assert!(!path.exists() && Path::new("/etc/passwd").exists());
        remove_tree(&path).unwrap();
    }
}
