//! Writes an archive's entries into a directory that is treated as `/`: no name and no link leads out of it.
//!
//! Names are resolved once per directory; every entry is then made by name in an open directory, in the order create,
//! owner, mode, extended attributes, time. Directories get their times last, since making entries in them changes it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use super::super::attributes::{
    CAPABILITY_XATTR, OVERLAY_XATTRS, OVERLAY_XATTRS_TRUSTED, USER_XATTRS, file_type, mtime_stamps, set_mtime,
};
use super::super::inroot::Root;
use super::applied::Applied;
use super::reader::{Content, Member, MemberKind};

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// aufs kept its own files under such names.
const AUFS_PREFIX: &[u8] = b".wh..wh.";
const IMPLIED_DIR_MODE: u32 = 0o755;
const COPY_BUFFER_BYTES: usize = 128 << 10;

/// What an archive may do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// An image layer: `.wh.` names are deletions and are stored in overlay's form.
    pub layer: bool,
    /// Keeps owners, devices, pipes and extended attributes; without it all is root's and those are refused.
    pub privileged: bool,
    /// Files of this time (seconds) get this instant (nanoseconds) instead.
    pub logical: Option<(i64, i64)>,
    pub max_entries: u64,
    pub max_bytes: u64,
}

/// Applies entries one by one.
pub struct Extractor<'a> {
    root: &'a Root,
    /// Where the archive's `/` is, canonical.
    prefix: PathBuf,
    options: Options,
    applied: Applied,
    parent: Option<Parent>,
    buffer: Vec<u8>,
    entries: u64,
    bytes: u64,
}

struct Parent {
    name: PathBuf,
    canonical: PathBuf,
    dir: OwnedFd,
}

impl<'a> Extractor<'a> {
    /// Extracts below `prefix`, a canonical path in `root` that exists.
    pub fn new(root: &'a Root, prefix: &Path, options: Options) -> Self {
        Self {
            root,
            prefix: prefix.to_owned(),
            options,
            applied: Applied::default(),
            parent: None,
            buffer: vec![0; COPY_BUFFER_BYTES],
            entries: 0,
            bytes: 0,
        }
    }

    pub fn apply(&mut self, member: &Member, data: impl Read) -> io::Result<()> {
        self.entries += 1;
        if self.entries > self.options.max_entries {
            return Err(refused("the archive has too many entries"));
        }
        let path = self.prefix.join(clean(&member.path)?);
        let Some(name) = path.file_name().filter(|_| path != self.prefix) else {
            return self.apply_root(member);
        };
        let (canonical, dir) = self.parent_of(&path)?;
        let name = name.as_bytes().to_vec();
        if self.options.layer && name.starts_with(WHITEOUT_PREFIX) {
            return self.whiteout(&canonical, &dir, &name);
        }
        let path = canonical.join(OsStr::from_bytes(&name));
        let existing = self.make_way(&dir, &name, member.kind == MemberKind::Directory)?;
        self.applied.implied.remove(&path);
        match &member.kind {
            MemberKind::Directory => self.directory(&path, &dir, &name, member, existing),
            MemberKind::File(content) => self.file(&dir, &name, member, content, data),
            MemberKind::Hardlink(target) => self.hardlink(&path, &dir, &name, target),
            MemberKind::Symlink(target) => {
                rustix::fs::symlinkat(target.as_slice(), &dir, name.as_slice())?;
                self.special_attributes(&dir, &name, member, false)
            }
            MemberKind::Fifo => self.device(&dir, &name, member, FileType::Fifo, (0, 0)),
            MemberKind::CharDevice { major, minor } => {
                self.device(&dir, &name, member, FileType::CharacterDevice, (*major, *minor))
            }
            MemberKind::BlockDevice { major, minor } => {
                self.device(&dir, &name, member, FileType::BlockDevice, (*major, *minor))
            }
        }
    }

    /// Ends the extraction; the caller sets the directories' times once it has done its own part.
    pub fn finish(self) -> Applied {
        self.applied
    }

    fn apply_root(&mut self, member: &Member) -> io::Result<()> {
        if member.kind != MemberKind::Directory {
            return Err(refused("the archive's root is no directory"));
        }
        // The destination of an ADD is not the archive's to change.
        if self.options.layer {
            let dir = self.root.open_dir(&self.prefix)?;
            self.attributes(&dir, member)?;
            let time = self.time(member);
            self.applied.dir_times.insert(self.prefix.clone(), time);
        }
        Ok(())
    }

    /// The directory that holds `path`, made if the archive has no entry for it.
    fn parent_of(&mut self, path: &Path) -> io::Result<(PathBuf, OwnedFd)> {
        let name = path.parent().unwrap_or(Path::new(""));
        if let Some(parent) = &self.parent
            && parent.name == name
        {
            return Ok((parent.canonical.clone(), parent.dir.try_clone()?));
        }
        let canonical = self.root.resolve(name, true)?;
        let implied = &mut self.applied.implied;
        let dir = self.root.make_dirs(&canonical, IMPLIED_DIR_MODE, |path, _| {
            implied.insert(path.to_owned());
            Ok(())
        })?;
        let copy = dir.try_clone()?;
        self.parent = Some(Parent {
            name: name.to_owned(),
            canonical: canonical.clone(),
            dir,
        });
        Ok((canonical, copy))
    }

    /// Removes what an entry replaces. A directory stays for a directory.
    fn make_way(&mut self, dir: &OwnedFd, name: &[u8], for_directory: bool) -> io::Result<Existing> {
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(Existing::Nothing),
            Err(errno) => return Err(errno.into()),
        };
        match file_type(&stat) {
            FileType::Directory if for_directory => return Ok(Existing::Directory),
            FileType::Directory => {
                // Directories below it may be the remembered parent.
                self.parent = None;
                let path = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string());
                std::fs::remove_dir_all(path.join(OsStr::from_bytes(name)))?;
            }
            _ => rustix::fs::unlinkat(dir, name, AtFlags::empty())?,
        }
        let whiteout = file_type(&stat) == FileType::CharacterDevice && stat.st_rdev == 0;
        Ok(if whiteout {
            Existing::Whiteout
        } else {
            Existing::Nothing
        })
    }

    fn directory(
        &mut self,
        path: &Path,
        dir: &OwnedFd,
        name: &[u8],
        member: &Member,
        existing: Existing,
    ) -> io::Result<()> {
        if !matches!(existing, Existing::Directory) {
            rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o700))?;
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let new = rustix::fs::openat(dir, name, flags, Mode::empty())?;
        self.attributes(&new, member)?;
        if matches!(existing, Existing::Whiteout) {
            // Deleted below and made anew: nothing of the old one shows.
            set_opaque(&new)?;
            self.applied.whiteouts.retain(|whiteout| whiteout != path);
        }
        let time = self.time(member);
        self.applied.dir_times.insert(path.to_owned(), time);
        Ok(())
    }

    fn file(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        member: &Member,
        content: &Content,
        mut data: impl Read,
    ) -> io::Result<()> {
        self.bytes = self.bytes.saturating_add(content.size);
        if self.bytes > self.options.max_bytes {
            return Err(refused("the archive's files are too large"));
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))?);
        match &content.extents {
            None => self.copy(&mut data, &mut file, content.size)?,
            Some(extents) => {
                for (offset, length) in extents {
                    file.seek(SeekFrom::Start(*offset))?;
                    self.copy(&mut data, &mut file, *length)?;
                }
                file.set_len(content.size)?;
            }
        }
        self.attributes(&file, member)?;
        rustix::fs::futimens(&file, &mtime_stamps(self.time(member)))?;
        Ok(())
    }

    fn copy(&mut self, data: &mut impl Read, file: &mut File, size: u64) -> io::Result<()> {
        let mut left = size;
        while left > 0 {
            let wanted = usize::try_from(left).map_or(self.buffer.len(), |left| left.min(self.buffer.len()));
            let read = data.read(&mut self.buffer[..wanted])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            file.write_all(&self.buffer[..read])?;
            left -= read as u64;
        }
        Ok(())
    }

    fn hardlink(&mut self, path: &Path, dir: &OwnedFd, name: &[u8], target: &[u8]) -> io::Result<()> {
        let target = self.root.resolve(&self.prefix.join(clean(target)?), false)?;
        let (Some(target_name), parent) = (target.file_name(), target.parent().unwrap_or(Path::new("")))
        else {
            return Err(refused("a hardlink leads to the root"));
        };
        let linked = self.root.open_dir(parent).and_then(|from| {
            Ok(rustix::fs::linkat(
                &from,
                target_name,
                dir,
                name,
                AtFlags::empty(),
            )?)
        });
        match linked {
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.options.layer => {
                self.applied.links.push((path.to_owned(), target));
                Ok(())
            }
            other => other,
        }
    }

    fn device(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        member: &Member,
        kind: FileType,
        (major, minor): (u32, u32),
    ) -> io::Result<()> {
        if !self.options.privileged {
            return Err(refused("only files, directories and links may be in it"));
        }
        if kind == FileType::CharacterDevice && (major, minor) == (0, 0) {
            return Err(refused("the device 0:0 is overlay's mark of a deleted file"));
        }
        rustix::fs::mknodat(
            dir,
            name,
            kind,
            Mode::from_raw_mode(member.mode),
            rustix::fs::makedev(major, minor),
        )?;
        self.special_attributes(dir, name, member, true)
    }

    fn whiteout(&mut self, parent: &Path, dir: &OwnedFd, name: &[u8]) -> io::Result<()> {
        if name == OPAQUE {
            return set_opaque(dir);
        }
        if name.starts_with(AUFS_PREFIX) {
            return Ok(());
        }
        let name = &name[WHITEOUT_PREFIX.len()..];
        if matches!(name, b"" | b"." | b"..") {
            return Err(refused("a whiteout names nothing"));
        }
        let path = parent.join(OsStr::from_bytes(name));
        match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            // The layer has the path too, and it replaces what is below; a directory must not merge with it.
            Ok(stat) if file_type(&stat) == FileType::Directory => {
                let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                set_opaque(&rustix::fs::openat(dir, name, flags, Mode::empty())?)
            }
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => {
                rustix::fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0)?;
                self.applied.whiteouts.push(path);
                Ok(())
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn attributes(&self, file: &impl std::os::fd::AsFd, member: &Member) -> io::Result<()> {
        if self.options.privileged {
            rustix::fs::fchown(
                file,
                Some(Uid::from_raw(member.uid)),
                Some(Gid::from_raw(member.gid)),
            )?;
        }
        rustix::fs::fchmod(file, Mode::from_raw_mode(member.mode))?;
        for (name, value) in &member.xattrs {
            if self.options.privileged && keeps(name) {
                rustix::fs::fsetxattr(file, name.as_str(), value, XattrFlags::empty())?;
            }
        }
        Ok(())
    }

    /// Of what can't be opened: links, pipes, devices.
    fn special_attributes(&self, dir: &OwnedFd, name: &[u8], member: &Member, chmod: bool) -> io::Result<()> {
        if self.options.privileged {
            let (uid, gid) = (Uid::from_raw(member.uid), Gid::from_raw(member.gid));
            rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if chmod {
            // It was just made in a directory of ours, so it is no link.
            rustix::fs::chmodat(dir, name, Mode::from_raw_mode(member.mode), AtFlags::empty())?;
        }
        set_mtime(dir, name, self.time(member))
    }

    fn time(&self, member: &Member) -> i64 {
        match self.options.logical {
            Some((seconds, instant)) if member.mtime == seconds.saturating_mul(1_000_000_000) => instant,
            _ => member.mtime,
        }
    }
}

enum Existing {
    Nothing,
    Directory,
    Whiteout,
}

/// Which extended attributes an archive may set. Overlay's would forge links to other files.
fn keeps(name: &str) -> bool {
    let overlay = name.starts_with(OVERLAY_XATTRS) || name.starts_with(OVERLAY_XATTRS_TRUSTED);
    !overlay && (name.starts_with(USER_XATTRS) || name == CAPABILITY_XATTR)
}

fn set_opaque(dir: &impl std::os::fd::AsFd) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(
        dir,
        "user.overlay.opaque",
        b"y",
        XattrFlags::empty(),
    )?)
}

/// A name in an archive as a relative path without dots; one that leads out of the root is an error.
fn clean(name: &[u8]) -> io::Result<PathBuf> {
    let mut path = PathBuf::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if !path.pop() => return Err(refused("a name leads out of the root")),
            b".." => {}
            part => path.push(OsStr::from_bytes(part)),
        }
    }
    Ok(path)
}

fn refused(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests;
