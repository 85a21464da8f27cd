//! Whether two files hold the same bytes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const BUFFER_BYTES: usize = 256 << 10;

/// Compares by position: neither file's offset moves.
pub(super) fn same_content(a: &File, b: &File) -> io::Result<bool> {
    let (mut left, mut right) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
    let mut position = 0;
    loop {
        let read = read_full(a, &mut left, position)?;
        if read != read_full(b, &mut right, position)? || left[..read] != right[..read] {
            return Ok(false);
        }
        if read < BUFFER_BYTES {
            return Ok(true);
        }
        position += read as u64;
    }
}

fn read_full(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], position + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}
