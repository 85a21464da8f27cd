//! The content digest of what a COPY copies: names, types, modes, bytes; of a stage's files owners, attributes and
//! times too, but never a time that only stands for "when the layer was made".

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use tokio_util::sync::CancellationToken;

use super::sources::{self, Source};
use super::{CopyContext, CopyError, Origin};
use crate::plan::Copy;
use crate::snapshot::{Attributes, check_depth, file_type, first_names, join, mtime_of, names};

const READ_BUFFER_BYTES: usize = 256 << 10;

/// Hashes the set; fails if it is told to stop. Blocking.
pub(in crate::exec) fn digest(
    origin: Option<&Origin>,
    copy: &Copy,
    stop: &CancellationToken,
) -> Result<[u8; 32], CopyError> {
    let mut walker = Walker {
        stop,
        hasher: blake3::Hasher::new_derive_key("layeryard content v1"),
        links: HashMap::new(),
        buffer: vec![0; READ_BUFFER_BYTES],
    };
    if let Some(origin) = origin {
        for source in sources::list(origin, copy)? {
            walker.source(origin, &source)?;
        }
    }
    for file in &copy.inline {
        walker.frame(b"inline");
        walker.frame(file.name.as_bytes());
        walker.frame(&file.data);
    }
    Ok(*walker.hasher.finalize().as_bytes())
}

struct Walker<'a> {
    stop: &'a CancellationToken,
    hasher: blake3::Hasher,
    /// Files with several names: their number in the order of the walk.
    links: HashMap<(u64, u64), u64>,
    buffer: Vec<u8>,
}

impl Walker<'_> {
    fn source(&mut self, origin: &Origin, source: &Source) -> Result<(), CopyError> {
        self.frame(b"source");
        if source.is_dir {
            // Only its content is copied, neither its name nor its metadata.
            let dir = origin.root.open_dir(&source.path).copying("open", &source.path)?;
            return self.content(origin, &dir, &source.path);
        }
        let parent = source.path.parent().unwrap_or(Path::new(""));
        let name = source.path.file_name().unwrap_or_default().as_encoded_bytes();
        let dir = origin.root.open_dir(parent).copying("open", parent)?;
        self.frame(source.name.as_bytes());
        self.entry(origin, &dir, name, &source.path)
    }

    fn content(&mut self, origin: &Origin, dir: &OwnedFd, path: &Path) -> Result<(), CopyError> {
        check_depth(path).copying("walk", first_names(path))?;
        for name in names(dir).copying("list", path)? {
            let path = join(path, &name);
            self.frame(&name);
            self.entry(origin, dir, &name, &path)?;
        }
        self.frame(b"end");
        Ok(())
    }

    fn entry(&mut self, origin: &Origin, dir: &OwnedFd, name: &[u8], path: &Path) -> Result<(), CopyError> {
        let stat =
            rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).copying("read the metadata of", path)?;
        let kind = file_type(&stat);
        self.hasher.update(&(stat.st_mode & 0o170_000).to_le_bytes());
        if kind != FileType::Symlink {
            self.hasher.update(&(stat.st_mode & 0o7777).to_le_bytes());
        }
        if !origin.is_context {
            self.provenance(origin, &stat);
        }
        match kind {
            FileType::Directory => {
                let dir = open(dir, name, OFlags::DIRECTORY).copying("open", path)?;
                self.xattrs(origin, &dir, path)?;
                self.content(origin, &dir, path)
            }
            FileType::RegularFile => {
                if stat.st_nlink > 1 && self.is_known_link(&stat) {
                    return Ok(());
                }
                let file = open(dir, name, OFlags::NONBLOCK).copying("open", path)?;
                self.xattrs(origin, &file, path)?;
                self.hasher.update(&stat.st_size.to_le_bytes());
                self.bytes(File::from(file)).copying("read", path)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new()).copying("read the link", path)?;
                self.frame(target.as_bytes());
                Ok(())
            }
            _ => {
                self.hasher.update(&stat.st_rdev.to_le_bytes());
                Ok(())
            }
        }
    }

    fn provenance(&mut self, origin: &Origin, stat: &Stat) {
        self.hasher.update(&stat.st_uid.to_le_bytes());
        self.hasher.update(&stat.st_gid.to_le_bytes());
        if origin.times.stands_for_a_layer(mtime_of(stat)) {
            self.hasher.update(b"logical");
        } else {
            self.hasher.update(&mtime_of(stat).to_le_bytes());
        }
    }

    fn xattrs(&mut self, origin: &Origin, file: &OwnedFd, path: &Path) -> Result<(), CopyError> {
        if origin.is_context {
            return Ok(());
        }
        let attributes = Attributes::read(file).copying("read the metadata of", path)?;
        for (name, value) in &attributes.xattrs {
            self.frame(name.as_bytes());
            self.frame(value);
        }
        self.frame(b"end");
        Ok(())
    }

    /// The second and further names of a file refer to the first.
    fn is_known_link(&mut self, stat: &Stat) -> bool {
        let next = self.links.len() as u64;
        let first = *self.links.entry((stat.st_dev, stat.st_ino)).or_insert(next);
        if first == next {
            return false;
        }
        self.hasher.update(b"link");
        self.hasher.update(&first.to_le_bytes());
        true
    }

    fn bytes(&mut self, mut file: File) -> io::Result<()> {
        while !self.stop.is_cancelled() {
            let read = file.read(&mut self.buffer)?;
            if read == 0 {
                return Ok(());
            }
            self.hasher.update(&self.buffer[..read]);
        }
        Err(io::Error::other("the build has been stopped"))
    }

    fn frame(&mut self, value: &[u8]) {
        self.hasher.update(&(value.len() as u64).to_le_bytes());
        self.hasher.update(value);
    }
}

pub(super) fn open(dir: &OwnedFd, name: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashing_ends_with_the_build() {
        let stop = CancellationToken::new();
        let mut walker = Walker {
            stop: &stop,
            hasher: blake3::Hasher::new(),
            links: HashMap::new(),
            buffer: vec![0; READ_BUFFER_BYTES],
        };
        walker.bytes(tempfile::tempfile().unwrap()).unwrap();
        // Hours of zeros.
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 43).unwrap();
        stop.cancel();
        assert!(walker.bytes(file).is_err());
    }
}
