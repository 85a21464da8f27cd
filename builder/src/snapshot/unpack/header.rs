//! The fixed block at the head of each tar entry.

use std::io;

use super::reader::malformed;

pub(super) const BLOCK: usize = 512;

pub(super) struct Header([u8; BLOCK]);

impl Header {
    /// Checks the checksum, which old writers made of signed bytes.
    pub(super) fn parse(block: [u8; BLOCK]) -> io::Result<Self> {
        let field = 148..156;
        let sum = |signed: bool| -> i64 {
            block
                .iter()
                .enumerate()
                .map(|(at, byte)| match (field.contains(&at), signed) {
                    (true, _) => i64::from(b' '),
                    (false, true) => i64::from(*byte as i8),
                    (false, false) => i64::from(*byte),
                })
                .sum()
        };
        let stated = octal(&block[field.clone()])? as i64;
        if stated != sum(false) && stated != sum(true) {
            return Err(malformed("a header's checksum is wrong"));
        }
        Ok(Self(block))
    }

    pub(super) fn bytes(&self) -> &[u8; BLOCK] {
        &self.0
    }

    pub(super) fn flag(&self) -> u8 {
        self.0[156]
    }

    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        // Only POSIX has the prefix; GNU keeps other things there.
        let is_posix = &self.0[257..263] == b"ustar\0";
        let prefix = text(&self.0[345..500]);
        if is_posix && !prefix.is_empty() {
            [prefix, b"/", name].concat()
        } else {
            name.to_vec()
        }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(super) fn mode(&self) -> io::Result<u32> {
        Ok((number(&self.0[100..108])? & 0o7777) as u32)
    }

    pub(super) fn uid(&self) -> io::Result<u64> {
        unsigned(&self.0[108..116])
    }

    pub(super) fn gid(&self) -> io::Result<u64> {
        unsigned(&self.0[116..124])
    }

    pub(super) fn size(&self) -> io::Result<u64> {
        // Links may state the size of what they point to, without its bytes.
        if matches!(self.flag(), b'1' | b'2' | b'3' | b'4' | b'5' | b'6') {
            return Ok(0);
        }
        unsigned(&self.0[124..136])
    }

    pub(super) fn mtime(&self) -> io::Result<i64> {
        number(&self.0[136..148])
    }

    pub(super) fn major(&self) -> io::Result<u32> {
        device(&self.0[329..337])
    }

    pub(super) fn minor(&self) -> io::Result<u32> {
        device(&self.0[337..345])
    }
}

/// GNU's extents: numbers of 12 bytes until the first empty one.
pub(super) fn octal_list(field: &[u8]) -> io::Result<Vec<u64>> {
    field
        .chunks_exact(12)
        .take_while(|number| number.iter().any(|byte| *byte != 0))
        .map(unsigned)
        .collect()
}

fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

fn device(field: &[u8]) -> io::Result<u32> {
    u32::try_from(unsigned(field)?).map_err(|_| malformed("a device number is too large"))
}

fn unsigned(field: &[u8]) -> io::Result<u64> {
    u64::try_from(number(field)?).map_err(|_| malformed("a number is negative"))
}

/// Octal digits, or GNU's big-endian binary form.
fn number(field: &[u8]) -> io::Result<i64> {
    if field[0] & 0x80 == 0 {
        return Ok(octal(field)? as i64);
    }
    let negative = field[0] & 0x40 != 0;
    let mut value: i128 = if negative { -1 } else { 0 };
    for (at, byte) in field.iter().enumerate() {
        let byte = if at == 0 && !negative { byte & 0x7f } else { *byte };
        value = (value << 8) | i128::from(byte);
    }
    i64::try_from(value).map_err(|_| malformed("a number is too large"))
}

fn octal(field: &[u8]) -> io::Result<u64> {
    let digits: Vec<u8> = field
        .iter()
        .copied()
        .skip_while(|byte| *byte == b' ')
        .take_while(|byte| !matches!(byte, 0 | b' '))
        .collect();
    let mut value = 0u64;
    for digit in digits {
        if !(b'0'..=b'7').contains(&digit) {
            return Err(malformed("a header's number is none"));
        }
        value = value << 3 | u64::from(digit - b'0');
    }
    Ok(value)
}
