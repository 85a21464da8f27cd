//! From an upper directory in overlay form to the entries of a layer: only what differs from the tree below.
//!
//! Part of layer format 1. Entries come depth first, each directory's in the order `.wh..wh..opq`, whiteouts, the rest,
//! each sorted by name bytes; every ancestor of an entry has one too.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::compare::same_content;
use super::error::LayerError;
use super::sparse::SparseReader;
use super::tar::{Entry, Kind, TarWriter};
use super::time::LayerTimes;
use crate::snapshot::{
    Attributes, ImageXattrs, STUB_DIRS, Tree, check_depth, file_type, first_names, image_xattrs, join,
    mtime_of, names,
};

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// How many remarks a layer may make; more of them help nobody.
const MAX_WARNINGS: usize = 20;

/// What a layer is made of.
pub struct Diff {
    /// The step's own directory. Nobody writes to it any more.
    pub upper: PathBuf,
    /// The tree below as the image has it, without the stub.
    pub lower: Tree,
    pub times: LayerTimes,
}

impl Diff {
    /// Writes the layer's archive; returns remarks on what images can't carry.
    pub fn write<W: Write>(&self, out: W) -> Result<Vec<String>, LayerError> {
        let root = Path::new("");
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let upper = rustix::fs::open(&self.upper, flags, Mode::empty()).read("open", root)?;
        let lower = rustix::fs::openat(&self.lower, ".", flags, Mode::empty()).read("open", root)?;
        let mut walker = Walker {
            tar: TarWriter::new(out),
            times: &self.times,
            ancestors: Vec::new(),
            links: HashMap::new(),
            warnings: Vec::new(),
        };
        walker.root(upper, lower)?;
        walker.tar.finish().read("end the archive at", root)?;
        Ok(walker.warnings)
    }
}

struct Walker<'a, W> {
    tar: TarWriter<W>,
    times: &'a LayerTimes,
    /// Unchanged directories on the way down: written only once something below them is.
    ancestors: Vec<Entry>,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
    warnings: Vec<String>,
}

/// One name in a directory, with what it was before.
struct Node<'a> {
    path: PathBuf,
    dir: &'a OwnedFd,
    name: &'a [u8],
    stat: Stat,
    lower: Option<(&'a OwnedFd, Stat)>,
}

impl<W: Write> Walker<'_, W> {
    fn root(&mut self, upper: OwnedFd, lower: OwnedFd) -> Result<(), LayerError> {
        let path = PathBuf::new();
        let now = Attributes::read(&upper).read("read the metadata of", &path)?;
        let before = Attributes::read(&lower).read("read the metadata of", &path)?;
        // Its time alone is no change: every entry in it would make one.
        if (now.mode, now.uid, now.gid) != (before.mode, before.uid, before.gid) {
            let stat = rustix::fs::fstat(&upper).read("read the metadata of", &path)?;
            let entry = self.entry(b"./".to_vec(), Kind::Directory, &stat, now);
            self.append(&entry, &path)?;
        }
        self.directory(&path, &upper, Some(&lower))
    }

    /// The content of a directory.
    fn directory(&mut self, path: &Path, upper: &OwnedFd, lower: Option<&OwnedFd>) -> Result<(), LayerError> {
        if check_depth(path).is_err() {
            let reason = "directories are nested too deep in it";
            return Err(LayerError::Unrepresentable {
                path: first_names(path),
                reason,
            });
        }
        let mut entries = Vec::new();
        for name in names(upper).read("list", path)? {
            let stat = stat_at(upper, &name)
                .read("read the metadata of", path)?
                .ok_or_else(|| LayerError::Changed {
                    path: join(path, &name),
                })?;
            let before = match lower {
                Some(lower) => stat_at(lower, &name).read("read the metadata of", path)?,
                None => None,
            };
            let is_whiteout = file_type(&stat) == FileType::CharacterDevice && stat.st_rdev == 0;
            if is_whiteout && before.is_some() {
                self.whiteout(&join(path, &[WHITEOUT_PREFIX, &name].concat()))?;
            } else if !is_whiteout {
                entries.push((name, stat, before));
            }
        }
        for (name, stat, before) in &entries {
            let path = join(path, name);
            if name.starts_with(WHITEOUT_PREFIX) {
                let reason = "names that begin with .wh. mean deleted files in a layer";
                return Err(LayerError::Unrepresentable { path, reason });
            }
            let lower = lower.zip(*before);
            let node = Node {
                path,
                dir: upper,
                name,
                stat: *stat,
                lower,
            };
            match file_type(stat) {
                FileType::Directory => self.subdirectory(&node)?,
                FileType::Socket => self.warn(format!("/{} is a socket: left out", node.path.display())),
                _ => self.other(&node)?,
            }
        }
        Ok(())
    }

    fn subdirectory(&mut self, node: &Node<'_>) -> Result<(), LayerError> {
        let upper = node.open(node.dir, OFlags::DIRECTORY).read("open", &node.path)?;
        let xattrs = image_xattrs(&upper).read("read the extended attributes of", &node.path)?;
        let (opaque, attributes) = (xattrs.opaque, self.attributes(node, xattrs)?);
        let lower = match node.lower {
            Some((dir, stat)) if file_type(&stat) == FileType::Directory => Some(
                node.open(dir, OFlags::DIRECTORY)
                    .read("open the former", &node.path)?,
            ),
            _ => None,
        };
        let unchanged = match (&lower, node.lower) {
            (Some(lower), Some((_, before))) if !opaque => {
                mtime_of(&before) == mtime_of(&node.stat)
                    && Attributes::read(lower).read("read the former metadata of", &node.path)? == attributes
            }
            (None, None) => !opaque && is_untouched_stub(&node.path, &attributes),
            _ => false,
        };
        let mut path = tar_path(&node.path);
        path.push(b'/');
        let entry = self.entry(path, Kind::Directory, &node.stat, attributes);
        let depth = self.ancestors.len();
        if unchanged {
            self.ancestors.push(entry);
        } else {
            self.append(&entry, &node.path)?;
        }
        if opaque && lower.is_some() {
            self.whiteout(&join(&node.path, OPAQUE))?;
        }
        self.directory(&node.path, &upper, lower.as_ref().filter(|_| !opaque))?;
        // Still there if nothing below was written.
        self.ancestors.truncate(depth);
        Ok(())
    }

    /// Anything but a directory.
    fn other(&mut self, node: &Node<'_>) -> Result<(), LayerError> {
        let linked = node.stat.st_nlink > 1;
        let id = (node.stat.st_dev, node.stat.st_ino);
        let path = tar_path(&node.path);
        if linked && let Some(first) = self.links.get(&id) {
            let kind = Kind::Hardlink {
                target: first.clone(),
            };
            let attributes = Attributes::of(&node.stat, Default::default());
            let entry = self.entry(path, kind, &node.stat, attributes);
            return self.append(&entry, &node.path);
        }
        let (kind, attributes, file) = self.read(node)?;
        // A file with several names stays even if unchanged: its other names refer to it.
        if !linked && self.is_unchanged_copy(node, &kind, &attributes, file.as_ref())? {
            return Ok(());
        }
        if linked {
            self.links.insert(id, path.clone());
        }
        let entry = self.entry(path, kind, &node.stat, attributes);
        match file {
            None => self.append(&entry, &node.path),
            Some(file) => {
                self.write_ancestors(&node.path)?;
                let size = node.stat.st_size as u64;
                let data = SparseReader::new(file, size, node.stat.st_blocks as u64);
                self.tar
                    .append_file(&entry, data)
                    .map_err(|error| read_error(error, &node.path))
            }
        }
    }

    fn read(&mut self, node: &Node<'_>) -> Result<(Kind, Attributes, Option<File>), LayerError> {
        let plain = |kind| (kind, Attributes::of(&node.stat, Default::default()), None);
        let (major, minor) = (
            rustix::fs::major(node.stat.st_rdev),
            rustix::fs::minor(node.stat.st_rdev),
        );
        Ok(match file_type(&node.stat) {
            FileType::RegularFile => {
                let file = File::from(node.open(node.dir, OFlags::NONBLOCK).read("open", &node.path)?);
                let xattrs = image_xattrs(&file).read("read the extended attributes of", &node.path)?;
                let kind = Kind::File {
                    size: node.stat.st_size as u64,
                };
                (kind, self.attributes(node, xattrs)?, Some(file))
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(node.dir, node.name, Vec::new());
                plain(Kind::Symlink {
                    target: target.read("read the link", &node.path)?.into_bytes(),
                })
            }
            FileType::Fifo => plain(Kind::Fifo),
            FileType::CharacterDevice => plain(Kind::CharDevice { major, minor }),
            FileType::BlockDevice => plain(Kind::BlockDevice { major, minor }),
            _ => {
                let reason = "it is of an unknown type";
                return Err(LayerError::Unrepresentable {
                    path: node.path.clone(),
                    reason,
                });
            }
        })
    }

    /// Whether overlay copied the file up and nothing of it changed, as `chown -R` to the same owner does.
    fn is_unchanged_copy(
        &self,
        node: &Node<'_>,
        kind: &Kind,
        attributes: &Attributes,
        file: Option<&File>,
    ) -> Result<bool, LayerError> {
        let Some((dir, before)) = node.lower else {
            return Ok(false);
        };
        let now = &node.stat;
        let same_stat = before.st_mode == now.st_mode
            && (before.st_uid, before.st_gid) == (now.st_uid, now.st_gid)
            && before.st_rdev == now.st_rdev
            && mtime_of(&before) == mtime_of(now);
        if !same_stat {
            return Ok(false);
        }
        match (kind, file) {
            (Kind::File { .. }, Some(file)) if before.st_size == now.st_size => {
                let lower = File::from(
                    node.open(dir, OFlags::NONBLOCK)
                        .read("open the former", &node.path)?,
                );
                let former = Attributes::read(&lower).read("read the former metadata of", &node.path)?;
                Ok(former == *attributes
                    && same_content(file, &lower).read("compare with the former", &node.path)?)
            }
            (Kind::Symlink { target }, _) => {
                let former = rustix::fs::readlinkat(dir, node.name, Vec::new());
                Ok(former.read("read the former link", &node.path)?.as_bytes() == target)
            }
            (Kind::File { .. }, _) => Ok(false),
            _ => Ok(true),
        }
    }

    fn attributes(&mut self, node: &Node<'_>, xattrs: ImageXattrs) -> Result<Attributes, LayerError> {
        if xattrs.redirected {
            let reason = "overlay stores it as a reference to another file";
            return Err(LayerError::Unrepresentable {
                path: node.path.clone(),
                reason,
            });
        }
        for name in &xattrs.dropped {
            self.warn(format!(
                "/{}: the extended attribute {name} is left out",
                node.path.display()
            ));
        }
        Ok(Attributes::of(&node.stat, xattrs.kept))
    }

    fn entry(&self, path: Vec<u8>, kind: Kind, stat: &Stat, attributes: Attributes) -> Entry {
        Entry {
            path,
            kind,
            mode: attributes.mode,
            uid: attributes.uid,
            gid: attributes.gid,
            mtime: self.times.layer_time(mtime_of(stat)),
            xattrs: attributes.xattrs,
        }
    }

    fn whiteout(&mut self, path: &Path) -> Result<(), LayerError> {
        let entry = Entry {
            path: tar_path(path),
            kind: Kind::File { size: 0 },
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: 0,
            xattrs: Default::default(),
        };
        self.append(&entry, path)
    }

    fn append(&mut self, entry: &Entry, path: &Path) -> Result<(), LayerError> {
        self.write_ancestors(path)?;
        self.tar.append(entry).map_err(|error| read_error(error, path))
    }

    fn write_ancestors(&mut self, path: &Path) -> Result<(), LayerError> {
        for entry in self.ancestors.drain(..) {
            self.tar.append(&entry).map_err(|error| read_error(error, path))?;
        }
        Ok(())
    }

    fn warn(&mut self, message: String) {
        if self.warnings.len() < MAX_WARNINGS {
            self.warnings.push(message);
        }
    }
}

impl Node<'_> {
    /// Opens this name in `dir`, its own directory or the former one. Reading must not change access times.
    fn open(&self, dir: &OwnedFd, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(dir, self.name, flags | OFlags::NOATIME, Mode::empty()) {
            // Not the owner, or a file system that does not know the flag.
            Err(Errno::PERM | Errno::INVAL) => rustix::fs::openat(dir, self.name, flags, Mode::empty()),
            result => result,
        }
    }
}

/// The stub's directories are made by us, not by the image; a step that created and removed a file in one leaves a
/// copy behind that says nothing.
fn is_untouched_stub(path: &Path, attributes: &Attributes) -> bool {
    STUB_DIRS.iter().any(|stub| path == Path::new(stub))
        && (attributes.mode, attributes.uid, attributes.gid) == (0o755, 0, 0)
        && attributes.xattrs.is_empty()
}

fn stat_at(dir: impl AsFd, name: &[u8]) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn tar_path(path: &Path) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes().to_vec()
}

/// Writing to the pipeline fails only if its other end is gone.
fn read_error(error: io::Error, path: &Path) -> LayerError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => LayerError::Abandoned,
        io::ErrorKind::UnexpectedEof => LayerError::Changed {
            path: path.to_owned(),
        },
        _ => LayerError::Read {
            action: "read",
            path: path.to_owned(),
            source: error,
        },
    }
}

trait ReadContext<T> {
    fn read(self, action: &'static str, path: &Path) -> Result<T, LayerError>;
}

impl<T, E: Into<io::Error>> ReadContext<T> for Result<T, E> {
    fn read(self, action: &'static str, path: &Path) -> Result<T, LayerError> {
        self.map_err(|error| LayerError::Read {
            action,
            path: path.to_owned(),
            source: error.into(),
        })
    }
}

#[cfg(test)]
mod tests;
