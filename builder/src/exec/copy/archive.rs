//! ADD's local archives: recognised by their content, unpacked in place.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::{CopyError, Owner};
use crate::snapshot::Root;
use crate::snapshot::unpack::{Extractor, Options, Reader, decode};

const BZIP2_MAGIC: &[u8] = b"BZh";
const XZ_MAGIC: &[u8] = b"\xfd7zXZ\0";

/// Whether a file begins as an archive; one that does not is an ordinary file, compressed or not.
pub(super) fn is_archive(file: &mut File, name: &str) -> Result<bool, CopyError> {
    let failed = |source| CopyError::Archive {
        name: name.to_owned(),
        source,
    };
    let mut magic = [0; 8];
    let read = read_up_to(file, &mut magic).map_err(failed)?;
    for (start, format) in [(BZIP2_MAGIC, "bzip2"), (XZ_MAGIC, "xz")] {
        if magic[..read].starts_with(start) {
            return Err(CopyError::Compression {
                name: name.to_owned(),
                format,
            });
        }
    }
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let found = decode(&*file).is_ok_and(|content| matches!(Reader::new(content).next_member(), Ok(Some(_))));
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok(found)
}

/// Unpacks an archive below the canonical directory `dest`, which exists.
pub(super) fn unpack(
    file: &File,
    name: &str,
    tree: &Root,
    dest: &Path,
    owner: Option<Owner>,
) -> Result<(), CopyError> {
    let failed = |source| CopyError::Archive {
        name: name.to_owned(),
        source,
    };
    let options = Options {
        layer: false,
        privileged: true,
        logical: None,
        max_entries: u64::MAX,
        max_bytes: u64::MAX,
    };
    let mut extractor = Extractor::new(tree, dest, options);
    let mut reader = Reader::new(decode(file).map_err(failed)?);
    while let Some(mut member) = reader.next_member().map_err(failed)? {
        if let Some(owner) = owner {
            (member.uid, member.gid) = (owner.uid, owner.gid);
        }
        extractor.apply(&member, reader.data()).map_err(failed)?;
    }
    extractor.finish().set_dir_times(tree).map_err(failed)
}

fn read_up_to(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}
