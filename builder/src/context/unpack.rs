//! A context's archive to a directory: files, directories and links, all inside it.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::snapshot::Root;
use crate::snapshot::unpack::{Extractor, Options, Reader};

/// Limits of one context: what a build may put on this node's disk.
const MAX_ENTRIES: u64 = 5_000_000;
const MAX_BYTES: u64 = 1 << 40;

#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    #[error("could not open {}: {source}", path.display())]
    Open { path: PathBuf, source: std::io::Error },
    #[error("the context can't be read: {source}")]
    Read { source: std::io::Error },
    #[error("the context's entry {entry:?} can't be unpacked: {source}")]
    Entry { entry: String, source: std::io::Error },
}

/// Unpacks a tar stream into an existing, empty directory. Everything belongs to root; modes and times stay. Blocking.
pub fn unpack_tar(archive: impl Read, dir: &Path) -> Result<(), ContextError> {
    let root = Root::open(dir).map_err(|source| ContextError::Open {
        path: dir.to_owned(),
        source,
    })?;
    let options = Options {
        layer: false,
        privileged: false,
        logical: None,
        max_entries: MAX_ENTRIES,
        max_bytes: MAX_BYTES,
    };
    let mut extractor = Extractor::new(&root, Path::new(""), options);
    let mut reader = Reader::new(archive);
    while let Some(member) = reader
        .next_member()
        .map_err(|source| ContextError::Read { source })?
    {
        extractor
            .apply(&member, reader.data())
            .map_err(|source| ContextError::Entry {
                entry: String::from_utf8_lossy(&member.path).into_owned(),
                source,
            })?;
    }
    // The sender counts on every byte being read, also those after the archive's end.
    std::io::copy(&mut reader.into_inner(), &mut std::io::sink())
        .map_err(|source| ContextError::Read { source })?;
    extractor
        .finish()
        .set_dir_times(&root)
        .map_err(|source| ContextError::Read { source })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn header(path: &str, kind: tar::EntryType, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        // Written by hand: the crate refuses the names that this test is about.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(1234);
        header.set_gid(1234);
        header.set_mtime(1_600_000_000);
        header
    }

    fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind, content) in entries {
            let is_link = matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link);
            let size = if is_link { 0 } else { content.len() as u64 };
            let mut header = header(path, *kind, size);
            if is_link {
                header.as_mut_bytes()[157..157 + content.len()].copy_from_slice(content.as_bytes());
            }
            header.set_cksum();
            builder
                .append(&header, &content.as_bytes()[..size as usize])
                .unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn unpack(entries: &[(&str, tar::EntryType, &str)]) -> (tempfile::TempDir, Result<(), ContextError>) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        let result = unpack_tar(&archive(entries)[..], &dir.path().join("root"));
        (dir, result)
    }

    #[test]
    fn files_directories_and_links_are_unpacked_for_root() {
        use tar::EntryType::{Directory, Link, Regular, Symlink};
        let (dir, result) = unpack(&[
            ("./", Directory, ""),
            ("src/", Directory, ""),
            ("src/main.rs", Regular, "fn main() {}"),
            ("implied/deep/file", Regular, "x"),
            ("same", Link, "src/main.rs"),
            ("soft", Symlink, "/etc/passwd"),
        ]);
        result.unwrap();
        let root = dir.path().join("root");
        assert_eq!(fs::read_to_string(root.join("same")).unwrap(), "fn main() {}");
        assert_eq!(
            fs::read_link(root.join("soft")).unwrap(),
            Path::new("/etc/passwd")
        );
        let metadata = fs::metadata(root.join("src/main.rs")).unwrap();
        assert_eq!(
            (metadata.uid(), metadata.gid(), metadata.mtime()),
            (0, 0, 1_600_000_000)
        );
        assert_eq!(fs::metadata(root.join("src")).unwrap().mtime(), 1_600_000_000);
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o644);
    }

    #[test]
    fn nothing_gets_out() {
        use tar::EntryType::{Char, Fifo, Link, Regular, Symlink};
        for entries in [
            &[("../out", Regular, "x")][..],
            &[("a/../../out", Regular, "x")],
            &[("hard", Link, "../out")],
            &[("hard", Link, "/etc/passwd")],
            &[("null", Char, "")],
            &[("pipe", Fifo, "")],
        ] {
            let (dir, result) = unpack(entries);
            assert!(result.is_err(), "{entries:?}");
            assert!(!dir.path().join("out").exists());
        }
        let (dir, result) = unpack(&[
            ("up", Symlink, "../../../.."),
            ("up/out", Regular, "x"),
            ("abs", Symlink, "/tmp"),
            ("abs/layeryard-escape", Regular, "x"),
        ]);
        result.unwrap();
        let root = dir.path().join("root");
        assert!(
            root.join("out").exists() && root.join("tmp/layeryard-escape").exists(),
            "links stay inside"
        );
        assert!(!Path::new("/tmp/layeryard-escape").exists());
    }

    #[test]
    fn what_is_no_archive_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = unpack_tar(&[b'x'; 2048][..], dir.path()).unwrap_err();
        assert!(error.to_string().contains("malformed"), "{error}");
        assert!(
            unpack_tar(
                &archive(&[("a", tar::EntryType::Regular, "abc")])[..600],
                dir.path()
            )
            .is_err()
        );
    }
}
