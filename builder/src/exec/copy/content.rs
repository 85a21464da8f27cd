//! A file's bytes to another file, holes kept: a small file that claims a terabyte must not become one.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use rustix::fs::SeekFrom as Extent;
use rustix::io::Errno;

/// What stat counts blocks in.
const BLOCK_BYTES: u64 = 512;

/// Copies all of `source` into the new file `copy`.
pub(super) fn copy_content(source: &mut File, copy: &mut File) -> io::Result<()> {
    let stat = rustix::fs::fstat(&*source)?;
    let size = stat.st_size as u64;
    if stat.st_blocks as u64 * BLOCK_BYTES >= size {
        // The kernel copies, or shares the blocks where the file system can.
        return io::copy(source, copy).map(drop);
    }
    let mut position = 0;
    while position < size {
        let data = match rustix::fs::seek(&*source, Extent::Data(position)) {
            Err(Errno::NXIO) => break,
            data => data?,
        };
        position = rustix::fs::seek(&*source, Extent::Hole(data))?;
        source.seek(SeekFrom::Start(data))?;
        copy.seek(SeekFrom::Start(data))?;
        io::copy(&mut source.take(position - data), copy)?;
    }
    copy.set_len(size)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    fn copied(source: &mut File) -> File {
        let mut copy = tempfile::tempfile().unwrap();
        copy_content(source, &mut copy).unwrap();
        copy
    }

    #[test]
    fn holes_stay_holes() {
        const SIZE: u64 = 1 << 40;
        let mut source = tempfile::tempfile().unwrap();
        source.write_all_at(b"begin", 1 << 20).unwrap();
        source.write_all_at(b"middle", 1 << 30).unwrap();
        source.set_len(SIZE).unwrap();
        let copy = copied(&mut source);
        let metadata = copy.metadata().unwrap();
        assert_eq!(metadata.len(), SIZE);
        assert!(metadata.blocks() * BLOCK_BYTES < 1 << 20, "{}", metadata.blocks());
        let mut read = [0; 6];
        copy.read_exact_at(&mut read, 1 << 30).unwrap();
        assert_eq!(&read, b"middle");
        copy.read_exact_at(&mut read, 1 << 20).unwrap();
        assert_eq!(&read, b"begin\0");
    }

    #[test]
    fn plain_files_are_copied_whole() {
        for content in [Vec::new(), b"x".repeat(100_000)] {
            let mut source = tempfile::tempfile().unwrap();
            source.write_all_at(&content, 0).unwrap();
            let mut read = Vec::new();
            let mut copy = copied(&mut source);
            copy.rewind().unwrap();
            copy.read_to_end(&mut read).unwrap();
            assert_eq!(read, content);
        }
    }
}
