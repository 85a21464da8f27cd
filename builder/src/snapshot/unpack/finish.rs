//! What a layer's directory still needs once the layers below it are known.
//!
//! Layers are unpacked in parallel, each for itself, so what an entry means in the tree below is decided here, in the
//! order of the chain, and only for what the applier flagged.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::super::attributes::{Attributes, file_type, mtime_of, mtime_stamps};
use super::super::inroot::Root;
use super::applied::Applied;

/// Brings the layer in `root` in line with the tree below it.
pub(super) fn finish(root: &Root, lower: &Root, applied: &mut Applied) -> io::Result<()> {
    // A parent's path sorts before its children's; moving a directory renames what is still to be done.
    while let Some(path) = applied.implied.pop_first() {
        implied(root, lower, &path, applied)?;
    }
    for (path, target) in std::mem::take(&mut applied.links) {
        link_to_lower(root, lower, &path, &target)?;
    }
    for path in std::mem::take(&mut applied.whiteouts) {
        if lower_stat(lower, &path)?.is_none() {
            let (dir, name) = parent(root, &path)?;
            rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
        }
    }
    Ok(())
}

/// A directory that only its children's names imply is the one below, with its metadata.
fn implied(root: &Root, lower: &Root, path: &Path, applied: &mut Applied) -> io::Result<()> {
    if !root
        .stat(path)?
        .is_some_and(|stat| file_type(&stat) == FileType::Directory)
    {
        return Ok(());
    }
    let Some(stat) = lower_stat(lower, path)? else {
        return Ok(());
    };
    match file_type(&stat) {
        FileType::Directory => {
            let (from, to) = (lower.open_dir(path)?, root.open_dir(path)?);
            Attributes::read(&from)?.write(&to)?;
            applied.dir_times.insert(path.to_owned(), mtime_of(&stat));
            Ok(())
        }
        FileType::Symlink => {
            let target = lower.resolve(path, true)?;
            move_content(root, lower, path, &target)?;
            applied.rebase(path, &target);
            Ok(())
        }
        _ => Err(io::Error::new(
            io::ErrorKind::NotADirectory,
            format!("/{} is no directory in the layers below", path.display()),
        )),
    }
}

/// The tree below has a link in a directory's place: the children belong where it leads.
fn move_content(root: &Root, lower: &Root, from: &Path, to: &Path) -> io::Result<()> {
    let mut made = Vec::new();
    let target = root.make_dirs(to, 0o755, |path, _| {
        made.push(path.to_owned());
        Ok(())
    })?;
    for path in made {
        if let (Ok(from), to) = (lower.open_dir(&path), root.open_dir(&path)?) {
            Attributes::read(&from)?.write(&to)?;
        }
    }
    merge(&root.open_dir(from)?, &target)?;
    let (dir, name) = parent(root, from)?;
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?;
    Ok(())
}

/// Moves everything in one directory to another; directories of the same name are merged, of other things the moved
/// one stays, as if its entry had come last.
fn merge(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match rustix::fs::renameat(from, name, to, name) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let open = |dir: &OwnedFd| rustix::fs::openat(dir, name, flags, Mode::empty());
                merge(&open(from)?, &open(to)?)?;
                rustix::fs::unlinkat(from, name, AtFlags::REMOVEDIR)?;
            }
            result => result?,
        }
    }
    Ok(())
}

/// A hardlink to a file of a lower layer: copied up, as overlay would, under both names.
fn link_to_lower(root: &Root, lower: &Root, path: &Path, target: &Path) -> io::Result<()> {
    if root.stat(target)?.is_none() {
        let stat = lower_stat(lower, target)?.filter(|stat| file_type(stat) == FileType::RegularFile);
        let stat = stat.ok_or_else(|| {
            let reason = format!("a hardlink leads to /{}, which no layer has", target.display());
            io::Error::new(io::ErrorKind::NotFound, reason)
        })?;
        let canonical = root.resolve(target.parent().unwrap_or(Path::new("")), true)?;
        let mut made: Vec<PathBuf> = Vec::new();
        root.make_dirs(&canonical, 0o755, |path, _| {
            made.push(path.to_owned());
            Ok(())
        })?;
        for path in made {
            if let (Ok(from), to) = (lower.open_dir(&path), root.open_dir(&path)?) {
                Attributes::read(&from)?.write(&to)?;
            }
        }
        let mut from = File::from(lower.open_at(target, OFlags::RDONLY | OFlags::NOFOLLOW)?);
        let (dir, name) = parent(root, target)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mut to = File::from(rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))?);
        io::copy(&mut from, &mut to)?;
        Attributes::read(&from)?.write(&to)?;
        rustix::fs::futimens(&to, &mtime_stamps(mtime_of(&stat)))?;
    }
    let (from_dir, from_name) = parent(root, target)?;
    let (to_dir, to_name) = parent(root, path)?;
    Ok(rustix::fs::linkat(
        from_dir,
        from_name,
        to_dir,
        to_name,
        AtFlags::empty(),
    )?)
}

/// A path whose parent is no directory below does not exist there.
fn lower_stat(lower: &Root, path: &Path) -> io::Result<Option<rustix::fs::Stat>> {
    match lower.stat(path) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(None),
        result => result,
    }
}

fn parent<'p>(root: &Root, path: &'p Path) -> io::Result<(OwnedFd, &'p std::ffi::OsStr)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    Ok((root.open_dir(path.parent().unwrap_or(Path::new("")))?, name))
}
