//! Reads a file without reading its holes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

const BLOCK: u64 = 512;

/// Gives `size` bytes of a file; holes come out as zeros. A plain file is simply read.
pub(super) struct SparseReader {
    file: File,
    position: u64,
    size: u64,
    /// Where the data or the hole at `position` ends.
    data_until: u64,
    hole_until: u64,
    sparse: bool,
}

impl SparseReader {
    /// `blocks` as stat counts them: fewer than the size needs mean holes.
    pub(super) fn new(file: File, size: u64, blocks: u64) -> Self {
        Self {
            file,
            position: 0,
            size,
            data_until: 0,
            hole_until: 0,
            sparse: blocks * BLOCK < size,
        }
    }

    fn find_extent(&mut self) -> io::Result<()> {
        match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(self.position)) {
            Ok(data) => self.hole_until = data,
            Err(rustix::io::Errno::NXIO) => {
                self.hole_until = self.size;
                return Ok(());
            }
            Err(errno) => return Err(errno.into()),
        }
        self.data_until = rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Hole(self.hole_until))?;
        self.file.seek(SeekFrom::Start(self.hole_until))?;
        Ok(())
    }
}

impl Read for SparseReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.sparse {
            return self.file.read(buffer);
        }
        if self.position >= self.size {
            return Ok(0);
        }
        if self.position >= self.hole_until && self.position >= self.data_until {
            self.find_extent()?;
        }
        let in_hole = self.position < self.hole_until;
        let until = if in_hole { self.hole_until } else { self.data_until }.min(self.size);
        let wanted =
            usize::try_from(until - self.position).map_or(buffer.len(), |rest| rest.min(buffer.len()));
        let read = if in_hole {
            buffer[..wanted].fill(0);
            wanted
        } else {
            self.file.read(&mut buffer[..wanted])?
        };
        self.position += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    #[test]
    fn holes_read_as_zeros() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"begin", 1 << 16).unwrap();
        file.write_all_at(b"end", 3 << 20).unwrap();
        file.set_len((4 << 20) + 7).unwrap();
        let metadata = file.metadata().unwrap();
        assert!(
            metadata.blocks() * BLOCK < metadata.len(),
            "the file system makes holes"
        );
        let mut plain = Vec::new();
        let mut again = file.try_clone().unwrap();
        again.seek(SeekFrom::Start(0)).unwrap();
        again.read_to_end(&mut plain).unwrap();
        let mut sparse = Vec::new();
        SparseReader::new(file, metadata.len(), metadata.blocks())
            .read_to_end(&mut sparse)
            .unwrap();
        assert!(plain == sparse);
    }
}
