//! The build context as a tar stream.
//!
//! The directory is scanned first, which gives the order and the total, and then read once into the stream. The same
//! files always make the same bytes: entries are sorted by name, and times and owners are left out, because no build
//! looks at them (COPY sets both).

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use builder::context::ignore::IgnoreRules;
use tar::{EntryType, Header};

/// Longer names do not fit into a tar header and travel in a PAX record before it.
const HEADER_NAME_BYTES_MAX: usize = 100;

/// What a context holds, in the order in which it is sent.
#[derive(Debug)]
pub(crate) struct Context {
    root: PathBuf,
    entries: Vec<Entry>,
    /// All files' bytes together.
    pub(crate) size_bytes: u64,
    /// Sockets, pipes and devices, which no image can have from here.
    pub(crate) skipped: Vec<PathBuf>,
}

#[derive(Debug)]
struct Entry {
    /// Relative to the root.
    path: PathBuf,
    mode: u32,
    kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    File {
        size: u64,
    },
    /// Another name of a file that comes earlier.
    HardLink {
        first: PathBuf,
    },
    Symlink {
        target: PathBuf,
    },
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ContextError {
    #[error("cannot read {} of the build context: {source}; exclude it in .dockerignore or make it readable", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} shrank from {expected} bytes while it was being sent: build again when nothing writes to it", path.display())]
    Shrank { path: PathBuf, expected: u64 },
    #[error("cannot send the build context: {0}")]
    Send(#[source] io::Error),
}

impl Context {
    /// Finds what belongs to the context.
    pub(crate) fn scan(root: &Path, rules: &IgnoreRules) -> Result<Self, ContextError> {
        let context = Self {
            root: root.to_owned(),
            entries: Vec::new(),
            size_bytes: 0,
            skipped: Vec::new(),
        };
        let mut scan = Scan {
            context,
            rules,
            links: HashMap::new(),
            pending: Vec::new(),
        };
        scan.directory(Path::new(""))?;
        Ok(scan.context)
    }

    /// Writes the tar stream. The files are opened now: what was exchanged for a link since is refused.
    pub(crate) fn write_to(&self, out: impl Write) -> Result<(), ContextError> {
        let mut archive = tar::Builder::new(out);
        for entry in &self.entries {
            match &entry.kind {
                Kind::Directory => entry.append(&mut archive, EntryType::Directory, 0, None, io::empty())?,
                Kind::Symlink { target } => {
                    entry.append(&mut archive, EntryType::Symlink, 0, Some(target), io::empty())?;
                }
                Kind::HardLink { first } => {
                    entry.append(&mut archive, EntryType::Link, 0, Some(first), io::empty())?;
                }
                Kind::File { size } => self.append_file(&mut archive, entry, *size)?,
            }
        }
        archive
            .into_inner()
            .and_then(|mut out| out.flush())
            .map_err(ContextError::Send)
    }

    fn append_file(
        &self,
        archive: &mut tar::Builder<impl Write>,
        entry: &Entry,
        size: u64,
    ) -> Result<(), ContextError> {
        let path = self.root.join(&entry.path);
        let file = File::options()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(|source| ContextError::Read {
                path: path.clone(),
                source,
            })?;
        let mut reader = Exactly {
            inner: file.take(size),
            left: size,
            failure: None,
        };
        let appended = entry.append(archive, EntryType::Regular, size, None, &mut reader);
        // The archive only sees that reading failed; why is known here.
        match reader.failure {
            Some(None) => Err(ContextError::Shrank { path, expected: size }),
            Some(Some(source)) => Err(ContextError::Read { path, source }),
            None => appended,
        }
    }
}

struct Scan<'a> {
    context: Context,
    rules: &'a IgnoreRules,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), PathBuf>,
    /// Left-out directories around the current one: sent only if a `!` rule keeps something in them.
    pending: Vec<Entry>,
}

impl Scan<'_> {
    fn directory(&mut self, directory: &Path) -> Result<(), ContextError> {
        let full = self.context.root.join(directory);
        let wrong = |source| ContextError::Read {
            path: full.clone(),
            source,
        };
        let mut names = Vec::new();
        for entry in fs::read_dir(&full).map_err(wrong)? {
            names.push(entry.map_err(wrong)?.file_name());
        }
        names.sort_by(|a: &OsString, b| a.as_bytes().cmp(b.as_bytes()));
        for name in names {
            self.entry(&directory.join(name))?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path) -> Result<(), ContextError> {
        let text = path.to_string_lossy();
        let ignored = self.rules.is_ignored(&text);
        let full = self.context.root.join(path);
        let metadata = match fs::symlink_metadata(&full) {
            Ok(metadata) => metadata,
            // Gone since the directory was listed: a build tool's temporary file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(_) if ignored => return Ok(()),
            Err(source) => return Err(ContextError::Read { path: full, source }),
        };
        let mode = metadata.mode() & 0o7777;
        if metadata.is_dir() {
            if ignored && self.rules.can_skip_dir(&text) {
                return Ok(());
            }
            let entry = Entry {
                path: path.to_owned(),
                mode,
                kind: Kind::Directory,
            };
            self.pending.push(entry);
            if !ignored {
                self.keep_pending();
            }
            self.directory(path)?;
            // Nothing in it was kept.
            self.pending.pop_if(|entry| entry.path == path);
            return Ok(());
        }
        if ignored {
            return Ok(());
        }
        let Some(kind) = self.kind(path, &full, &metadata)? else {
            self.context.skipped.push(path.to_owned());
            return Ok(());
        };
        self.keep_pending();
        self.context.entries.push(Entry {
            path: path.to_owned(),
            mode,
            kind,
        });
        Ok(())
    }

    fn kind(&mut self, path: &Path, full: &Path, metadata: &Metadata) -> Result<Option<Kind>, ContextError> {
        let file_type = metadata.file_type();
        if file_type.is_symlink() {
            let target = fs::read_link(full).map_err(|source| ContextError::Read {
                path: full.to_owned(),
                source,
            })?;
            return Ok(Some(Kind::Symlink { target }));
        }
        if file_type.is_socket()
            || file_type.is_fifo()
            || file_type.is_block_device()
            || file_type.is_char_device()
        {
            return Ok(None);
        }
        if metadata.nlink() > 1 {
            let first = self
                .links
                .entry((metadata.dev(), metadata.ino()))
                .or_insert_with(|| path.to_owned());
            if first != path {
                return Ok(Some(Kind::HardLink { first: first.clone() }));
            }
        }
        self.context.size_bytes += metadata.len();
        Ok(Some(Kind::File { size: metadata.len() }))
    }

    fn keep_pending(&mut self) {
        self.context.entries.append(&mut self.pending);
    }
}

impl Entry {
    fn append(
        &self,
        archive: &mut tar::Builder<impl Write>,
        entry_type: EntryType,
        size: u64,
        link: Option<&Path>,
        data: impl Read,
    ) -> Result<(), ContextError> {
        let name = self.path.as_os_str().as_bytes();
        let link = link.map(|link| link.as_os_str().as_bytes()).unwrap_or_default();
        let long = [("path", name), ("linkpath", link)];
        let long = long
            .into_iter()
            .filter(|(_, value)| value.len() > HEADER_NAME_BYTES_MAX);
        let mut header = Header::new_gnu();
        header.set_entry_type(entry_type);
        header.set_mode(self.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        let fields = header.as_old_mut();
        copy_prefix(&mut fields.name, name);
        copy_prefix(&mut fields.linkname, link);
        header.set_cksum();
        archive
            .append_pax_extensions(long)
            .and_then(|()| archive.append(&header, data))
            .map_err(ContextError::Send)
    }
}

fn copy_prefix(field: &mut [u8; HEADER_NAME_BYTES_MAX], value: &[u8]) {
    let length = value.len().min(HEADER_NAME_BYTES_MAX);
    field[..length].copy_from_slice(&value[..length]);
}

/// Fails where a file ends before the size that its header promised; what a growing file gained is left out.
struct Exactly {
    inner: io::Take<File>,
    left: u64,
    /// Why reading failed; `Some(None)`: the file ended too early.
    failure: Option<Option<io::Error>>,
}

impl Read for &mut Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        match self.inner.read(buffer) {
            Ok(0) => {
                self.failure = Some(None);
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Ok(count) => {
                self.left -= count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.failure = Some(Some(error));
                Err(kind.into())
            }
        }
    }
}

#[cfg(test)]
mod tests;
