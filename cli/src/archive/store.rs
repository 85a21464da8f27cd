//! The files of an archive by name: of a tar on disk, or of a directory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use client::FileSource;
use tempfile::TempPath;

use super::compressed::{decompress, is_compressed};

/// The largest JSON document of an archive that is read.
const JSON_BYTES_MAX: u64 = 16 << 20;

/// How many links lead to a file at most.
const LINKS_MAX: usize = 16;

/// An archive that is open for reading.
pub(crate) enum Store {
    Directory(PathBuf),
    Tar {
        path: PathBuf,
        entries: HashMap<String, Slot>,
        /// Removes what came from standard input or was decompressed.
        _spooled: Option<TempPath>,
    },
}

/// What a name stands for in a tar.
pub(crate) enum Slot {
    File {
        start: u64,
        length: u64,
    },
    /// `docker save` links layers that images share.
    Link(String),
}

impl Store {
    /// Blocking. A stream or a compressed archive is copied to a temporary file first, because its parts are needed in
    /// another order.
    pub(crate) fn open(input: &Path) -> anyhow::Result<Self> {
        if input == Path::new("-") {
            let plain = decompress(io::stdin()).context("cannot read standard input")?;
            return Self::spool(plain).context("standard input");
        }
        let name = || format!("cannot read {}", input.display());
        if std::fs::metadata(input).with_context(name)?.is_dir() {
            return Ok(Self::Directory(input.to_owned()));
        }
        let mut file = File::open(input).with_context(name)?;
        let mut head = [0; 6];
        let known = file.read(&mut head).with_context(name)?;
        file.seek(SeekFrom::Start(0)).with_context(name)?;
        if is_compressed(&head[..known]) {
            return Self::spool(decompress(file).with_context(name)?).with_context(name);
        }
        let entries = index(&file).with_context(|| format!("{} is no image archive", input.display()))?;
        Ok(Self::Tar {
            path: input.to_owned(),
            entries,
            _spooled: None,
        })
    }

    fn spool(mut input: impl Read) -> anyhow::Result<Self> {
        let mut file = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
        io::copy(&mut input, &mut file).context("cannot copy it to a temporary file")?;
        let entries = index(&file.reopen()?).context("no image archive")?;
        let path = file.into_temp_path();
        Ok(Self::Tar {
            path: path.to_path_buf(),
            entries,
            _spooled: Some(path),
        })
    }

    /// Where a file's bytes are; `None` if there is no such file.
    pub(crate) fn find(&self, name: &str) -> anyhow::Result<Option<FileSource>> {
        match self {
            Self::Directory(root) => find_below(root, name),
            Self::Tar { path, entries, .. } => {
                let mut name = clean(name);
                for _ in 0..LINKS_MAX {
                    match entries.get(&name) {
                        Some(Slot::File { start, length }) => {
                            return Ok(Some(FileSource {
                                path: path.clone(),
                                start: *start,
                                length: *length,
                            }));
                        }
                        Some(Slot::Link(target)) => target.clone_into(&mut name),
                        None => return Ok(None),
                    }
                }
                bail!("links of the archive's {name} go round in a circle")
            }
        }
    }

    /// A file that has to be there.
    pub(crate) fn expect(&self, name: &str) -> anyhow::Result<FileSource> {
        self.find(name)?
            .ok_or_else(|| anyhow!("the archive has no {name}"))
    }

    /// Reads a document whole.
    pub(crate) fn read(&self, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let Some(source) = self.find(name)? else {
            return Ok(None);
        };
        if source.length > JSON_BYTES_MAX {
            bail!(
                "{name} of the archive is larger than {} MiB",
                JSON_BYTES_MAX >> 20
            );
        }
        let mut bytes = Vec::new();
        open(&source)?
            .read_to_end(&mut bytes)
            .with_context(|| format!("cannot read {name} of the archive"))?;
        Ok(Some(bytes))
    }
}

/// Opens a part of a file for blocking reads.
pub(crate) fn open(source: &FileSource) -> anyhow::Result<impl Read + Send + use<>> {
    let name = || format!("cannot read {}", source.path.display());
    let mut file = File::open(&source.path).with_context(name)?;
    file.seek(SeekFrom::Start(source.start)).with_context(name)?;
    Ok(file.take(source.length))
}

/// A file of a layout's directory. Names come from the archive: none may lead out of it.
fn find_below(root: &Path, name: &str) -> anyhow::Result<Option<FileSource>> {
    let relative = Path::new(name);
    if !relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
    {
        bail!("the layout names {name:?}, which is no file in it");
    }
    let path = root.join(relative);
    match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => Ok(Some(FileSource {
            path,
            start: 0,
            length: metadata.len(),
        })),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Where each file of a tar begins.
fn index(file: &File) -> anyhow::Result<HashMap<String, Slot>> {
    let mut entries = HashMap::new();
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let name = clean(&String::from_utf8_lossy(&entry.path_bytes()));
        let kind = entry.header().entry_type();
        if kind.is_file() {
            entries.insert(
                name,
                Slot::File {
                    start: entry.raw_file_position(),
                    length: entry.size(),
                },
            );
        } else if kind.is_symlink() || kind.is_hard_link() {
            let link = entry.link_name_bytes().unwrap_or_default();
            let link = String::from_utf8_lossy(&link).into_owned();
            let target = match name.rsplit_once('/') {
                Some((directory, _)) if kind.is_symlink() => clean(&format!("{directory}/{link}")),
                _ => clean(&link),
            };
            entries.insert(name, Slot::Link(target));
        }
    }
    Ok(entries)
}

/// `./a//b/../c` → `a/c`.
fn clean(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(store: &Store, name: &str) -> Option<String> {
        store
            .read(name)
            .unwrap()
            .map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn files_of_an_archive_are_found_through_links() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut archive = tar::Builder::new(file.reopen().unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o644);
        archive
            .append_data(&mut header, "./a/layer.tar", &b"hello"[..])
            .unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive
            .append_link(&mut header, "b/layer.tar", "../a/layer.tar")
            .unwrap();
        archive
            .append_link(&mut header.clone(), "round", "round")
            .unwrap();
        archive.into_inner().unwrap();
        let store = Store::open(file.path()).unwrap();
        assert_eq!(text(&store, "a/layer.tar").as_deref(), Some("hello"));
        assert_eq!(text(&store, "b/layer.tar").as_deref(), Some("hello"));
        assert_eq!(text(&store, "absent"), None);
        assert!(store.find("round").is_err());
    }

    #[test]
    fn a_layout_names_no_file_outside() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("index.json"), "{}").unwrap();
        let store = Store::open(root.path()).unwrap();
        assert_eq!(text(&store, "index.json").as_deref(), Some("{}"));
        for name in ["../x", "/etc/passwd", "a/../../x"] {
            assert!(store.find(name).is_err(), "{name}");
        }
    }
}
