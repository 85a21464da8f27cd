//! Copies into a writable tree, as Docker does.
//!
//! A directory's content goes into the destination, whose own metadata stays if it existed; directories inside take
//! the source's. A file replaces a file or a link of its name; a directory is never replaced by a file nor the other
//! way round. Links in the destination's path are followed inside the tree.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use super::archive;
use super::content::copy_content;
use super::digest::open;
use super::mode::change;
use super::sources::{self, Source};
use super::{CopyContext, CopyError, Origin};
use crate::plan::Copy;
use crate::snapshot::{
    Attributes, Root, check_depth, file_type, first_names, join, mtime_of, names, set_mtime,
};

const NEW_DIR_MODE: u32 = 0o755;
const INLINE_FILE_MODE: u32 = 0o644;

/// `--chown`, looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::exec) struct Owner {
    pub(in crate::exec) uid: u32,
    pub(in crate::exec) gid: u32,
}

/// Does a COPY or ADD on `tree`. Blocking.
pub(in crate::exec) fn apply(
    tree: &Root,
    origin: Option<&Origin>,
    copy: &Copy,
    owner: Option<Owner>,
) -> Result<(), CopyError> {
    let dest = tree
        .resolve(Path::new(&copy.dest), true)
        .copying("resolve", &copy.dest)?;
    let mut copier = Copier {
        tree,
        origin,
        copy,
        owner,
        links: HashMap::new(),
    };
    if let Some(origin) = origin {
        for source in sources::list(origin, copy)? {
            copier.source(origin, &source, &dest)?;
        }
    }
    for file in &copy.inline {
        let target = copier.file_target(&dest, &file.name)?;
        copier.inline(&target, &file.data)?;
    }
    Ok(())
}

struct Copier<'a> {
    tree: &'a Root,
    origin: Option<&'a Origin>,
    copy: &'a Copy,
    owner: Option<Owner>,
    /// Where the first name of a file with several was copied to.
    links: HashMap<(u64, u64), PathBuf>,
}

/// A name in an open directory of the tree, with its path.
struct Target {
    dir: OwnedFd,
    name: Vec<u8>,
    path: PathBuf,
}

impl Copier<'_> {
    fn source(&mut self, origin: &Origin, source: &Source, dest: &Path) -> Result<(), CopyError> {
        if source.is_dir {
            let from = origin.root.open_dir(&source.path).copying("open", &source.path)?;
            let to = self.make_dirs(dest)?;
            return self.content(&from, &source.path, &to, dest);
        }
        if self.copy.unpack && self.is_regular(origin, &source.path)? {
            let file = origin
                .root
                .open_at(&source.path, OFlags::RDONLY)
                .copying("open", &source.path)?;
            let mut file = File::from(file);
            if archive::is_archive(&mut file, &source.name)? {
                self.make_dirs(dest)?;
                return archive::unpack(&file, &source.name, self.tree, dest, self.owner);
            }
        }
        let target = self.file_target(dest, &source.name)?;
        let parent = source.path.parent().unwrap_or(Path::new(""));
        let from = origin.root.open_dir(parent).copying("open", parent)?;
        let name = source.path.file_name().unwrap_or_default().as_encoded_bytes();
        self.entry(&from, name, &source.path, &target)
    }

    fn is_regular(&self, origin: &Origin, path: &Path) -> Result<bool, CopyError> {
        let stat = origin.root.stat(path).copying("read the metadata of", path)?;
        Ok(stat.is_some_and(|stat| file_type(&stat) == FileType::RegularFile))
    }

    /// Where a single file goes: into the destination if that is a directory, else to it.
    fn file_target(&mut self, dest: &Path, name: &str) -> Result<Target, CopyError> {
        let existing = self.tree.stat(dest).copying("read the metadata of", dest)?;
        let is_dir = existing.is_some_and(|stat| file_type(&stat) == FileType::Directory);
        let path = if self.copy.dest_is_dir || is_dir {
            dest.join(name)
        } else {
            dest.to_owned()
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        let dir = self.make_dirs(parent)?;
        let name = path.file_name().unwrap_or_default().as_encoded_bytes().to_vec();
        Ok(Target { dir, name, path })
    }

    fn make_dirs(&self, path: &Path) -> Result<OwnedFd, CopyError> {
        let owner = self.owner;
        let made = self.tree.make_dirs(path, NEW_DIR_MODE, |_, dir| match owner {
            Some(owner) => Ok(rustix::fs::fchown(
                dir,
                Some(Uid::from_raw(owner.uid)),
                Some(Gid::from_raw(owner.gid)),
            )?),
            None => Ok(()),
        });
        match made {
            Err(error) if matches!(error.raw_os_error(), Some(code) if is_not_dir(code)) => {
                Err(CopyError::OntoFile {
                    path: path.to_owned(),
                })
            }
            result => result.copying("make the directory", path),
        }
    }

    fn content(
        &mut self,
        from: &OwnedFd,
        from_path: &Path,
        to: &OwnedFd,
        to_path: &Path,
    ) -> Result<(), CopyError> {
        check_depth(from_path).copying("walk", first_names(from_path))?;
        for name in names(from).copying("list", from_path)? {
            let dir = to.try_clone().copying("open", to_path)?;
            let target = Target {
                dir,
                path: join(to_path, &name),
                name: name.clone(),
            };
            self.entry(from, &name, &join(from_path, &name), &target)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        from: &OwnedFd,
        name: &[u8],
        from_path: &Path,
        target: &Target,
    ) -> Result<(), CopyError> {
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)
            .copying("read the metadata of", from_path)?;
        if file_type(&stat) == FileType::Directory {
            return self.directory(from, name, from_path, target, &stat);
        }
        make_way(target)?;
        let id = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&id) {
                return self.link(first, target);
            }
            self.links.insert(id, target.path.clone());
        }
        match file_type(&stat) {
            FileType::RegularFile => return self.file(from, name, from_path, target, &stat),
            FileType::Symlink => {
                let link =
                    rustix::fs::readlinkat(from, name, Vec::new()).copying("read the link", from_path)?;
                rustix::fs::symlinkat(link, &target.dir, target.name.as_slice())
                    .copying("make the link", &target.path)?;
            }
            // Nothing listens on a copy of a socket.
            FileType::Socket => return Ok(()),
            kind => {
                let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
                rustix::fs::mknodat(&target.dir, target.name.as_slice(), kind, mode, stat.st_rdev)
                    .copying("make the device", &target.path)?;
            }
        }
        let (uid, gid) = self.owner_of(&stat);
        let name = target.name.as_slice();
        rustix::fs::chownat(&target.dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .copying("change the owner of", &target.path)?;
        if file_type(&stat) != FileType::Symlink {
            let mode = Mode::from_raw_mode(self.mode_of(&stat));
            rustix::fs::chmodat(&target.dir, name, mode, AtFlags::empty())
                .copying("change the mode of", &target.path)?;
        }
        self.keep_time(target, &stat)
    }

    fn directory(
        &mut self,
        from: &OwnedFd,
        name: &[u8],
        from_path: &Path,
        target: &Target,
        stat: &Stat,
    ) -> Result<(), CopyError> {
        let from = open(from, name, OFlags::DIRECTORY).copying("open", from_path)?;
        let mode = Mode::from_raw_mode(0o700);
        match rustix::fs::mkdirat(&target.dir, target.name.as_slice(), mode) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).copying("make the directory", &target.path),
        }
        let to = match open(&target.dir, &target.name, OFlags::DIRECTORY) {
            Err(error) if matches!(error.raw_os_error(), Some(code) if is_not_dir(code)) => {
                return Err(CopyError::OntoFile {
                    path: target.path.clone(),
                });
            }
            result => result.copying("open", &target.path)?,
        };
        self.content(&from, from_path, &to, &target.path)?;
        self.attributes(&from, &to, stat)
            .copying("set the metadata of", &target.path)?;
        self.keep_time(target, stat)
    }

    fn file(
        &mut self,
        from: &OwnedFd,
        name: &[u8],
        from_path: &Path,
        target: &Target,
        stat: &Stat,
    ) -> Result<(), CopyError> {
        let mut source = File::from(open(from, name, OFlags::NONBLOCK).copying("open", from_path)?);
        let mut copy = create(target)?;
        copy_content(&mut source, &mut copy).copying("copy to", &target.path)?;
        self.attributes(&source, &copy, stat)
            .copying("set the metadata of", &target.path)?;
        self.keep_time(target, stat)
    }

    fn inline(&mut self, target: &Target, data: &[u8]) -> Result<(), CopyError> {
        make_way(target)?;
        let mut file = create(target)?;
        io::Write::write_all(&mut file, data).copying("write", &target.path)?;
        let owner = self.owner.unwrap_or(Owner { uid: 0, gid: 0 });
        let mode = self
            .copy
            .chmod
            .as_ref()
            .map_or(INLINE_FILE_MODE, |chmod| change(chmod, INLINE_FILE_MODE, false));
        let attributes = Attributes {
            mode,
            uid: owner.uid,
            gid: owner.gid,
            xattrs: Default::default(),
        };
        attributes
            .write(&file)
            .copying("set the metadata of", &target.path)
    }

    fn link(&self, first: &Path, target: &Target) -> Result<(), CopyError> {
        let parent = first.parent().unwrap_or(Path::new(""));
        let dir = self.tree.open_dir(parent).copying("open", parent)?;
        let name = first.file_name().unwrap_or_default();
        rustix::fs::linkat(&dir, name, &target.dir, target.name.as_slice(), AtFlags::empty())
            .copying("link", &target.path)
    }

    fn attributes(
        &self,
        from: &impl std::os::fd::AsFd,
        to: &impl std::os::fd::AsFd,
        stat: &Stat,
    ) -> io::Result<()> {
        let (uid, gid) = self.owner_of(stat);
        let is_context = self.origin.is_none_or(|origin| origin.is_context);
        let xattrs = if is_context {
            Default::default()
        } else {
            Attributes::read(from)?.xattrs
        };
        let (uid, gid) = (uid.as_raw(), gid.as_raw());
        Attributes {
            mode: self.mode_of(stat),
            uid,
            gid,
            xattrs,
        }
        .write(to)
    }

    fn owner_of(&self, stat: &Stat) -> (Uid, Gid) {
        let is_context = self.origin.is_none_or(|origin| origin.is_context);
        let (uid, gid) = match self.owner {
            Some(owner) => (owner.uid, owner.gid),
            None if is_context => (0, 0),
            None => (stat.st_uid, stat.st_gid),
        };
        (Uid::from_raw(uid), Gid::from_raw(gid))
    }

    fn mode_of(&self, stat: &Stat) -> u32 {
        let mode = stat.st_mode & 0o7777;
        let is_dir = file_type(stat) == FileType::Directory;
        self.copy
            .chmod
            .as_ref()
            .map_or(mode, |chmod| change(chmod, mode, is_dir))
    }

    /// A time that its maker set stays; one that stands for its layer, and every one of the context, becomes this
    /// layer's, which is what a file written now gets.
    fn keep_time(&self, target: &Target, stat: &Stat) -> Result<(), CopyError> {
        let Some(origin) = self.origin.filter(|origin| !origin.is_context) else {
            return Ok(());
        };
        let mtime = mtime_of(stat);
        if origin.times.stands_for_a_layer(mtime) {
            return Ok(());
        }
        set_mtime(&target.dir, &target.name, mtime).copying("set the time of", &target.path)
    }
}

/// Removes a file or link that is replaced.
fn make_way(target: &Target) -> Result<(), CopyError> {
    match rustix::fs::unlinkat(&target.dir, target.name.as_slice(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => Err(CopyError::OntoDirectory {
            path: target.path.clone(),
        }),
        Err(errno) => Err(errno).copying("replace", &target.path),
    }
}

fn create(target: &Target) -> Result<File, CopyError> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::openat(&target.dir, target.name.as_slice(), flags, mode)
        .map(File::from)
        .copying("make the file", &target.path)
}

fn is_not_dir(code: i32) -> bool {
    [Errno::NOTDIR, Errno::LOOP]
        .iter()
        .any(|errno| errno.raw_os_error() == code)
}
