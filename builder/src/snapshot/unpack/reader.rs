//! Reads tar archives of every dialect that layers, contexts and ADD bring: ustar, GNU (long names, sparse files) and
//! PAX (attributes, sparse 0.1 and 1.0). What describes an entry is bounded; its content is streamed.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::header::{BLOCK, Header, octal_list};

/// Largest long name or PAX body: Go's limit.
const MAX_DESCRIPTION_BYTES: u64 = 1 << 20;
/// No file is larger; beyond it sums would overflow.
const MAX_MEMBER_BYTES: u64 = 1 << 62;
/// Digits of the largest number.
const MAX_DIGITS: usize = 20;
const MAX_SPARSE_EXTENTS: usize = 1 << 16;
const XATTR_PREFIX: &str = "SCHILY.xattr.";

/// An entry of an archive, its content still to be read with [`Reader::data`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// As it stands in the archive.
    pub path: Vec<u8>,
    pub kind: MemberKind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Nanoseconds since 1970.
    pub mtime: i64,
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberKind {
    File(Content),
    Hardlink(Vec<u8>),
    Symlink(Vec<u8>),
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
    Directory,
    Fifo,
}

/// How a file's stored bytes make its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub size: u64,
    /// Offset and length of each stored piece, in order; none: it is stored whole.
    pub extents: Option<Vec<(u64, u64)>>,
}

/// Reads one archive.
pub struct Reader<R> {
    input: R,
    /// Bytes of the current entry that nobody has read, and its padding.
    left: u64,
    padding: u64,
}

/// What long names and PAX headers say about the next entry.
#[derive(Default)]
struct Description {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Vec<(String, Vec<u8>)>,
}

impl<R: Read> Reader<R> {
    pub fn new(input: R) -> Self {
        Self {
            input,
            left: 0,
            padding: 0,
        }
    }

    /// The next entry, or none at the archive's end. Skips what was not read of the last one.
    pub fn next_member(&mut self) -> io::Result<Option<Member>> {
        let mut description = Description::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let size = header.size()?;
            self.begin(size)?;
            match header.flag() {
                b'L' => description.path = Some(until_nul(self.body()?)),
                b'K' => description.link = Some(until_nul(self.body()?)),
                b'x' => description.pax = parse_pax(&self.body()?)?,
                // Defaults for all entries: git writes only a comment there.
                b'g' => drop(self.body()?),
                _ => return self.member(&header, description).map(Some),
            }
        }
    }

    /// The stored bytes of the entry that [`Reader::next_member`] returned last.
    pub fn data(&mut self) -> Data<'_, R> {
        Data(self)
    }

    /// What follows the archive.
    pub fn into_inner(self) -> R {
        self.input
    }

    fn begin(&mut self, size: u64) -> io::Result<()> {
        if size > MAX_MEMBER_BYTES {
            return Err(malformed("an entry's size can't be"));
        }
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    fn skip(&mut self) -> io::Result<()> {
        let rest = self.left + self.padding;
        let skipped = io::copy(&mut (&mut self.input).take(rest), &mut io::sink())?;
        (self.left, self.padding) = (0, 0);
        if skipped == rest {
            Ok(())
        } else {
            Err(malformed("it ends inside an entry"))
        }
    }

    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(malformed("it ends inside a header")),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        Header::parse(block).map(Some)
    }

    fn body(&mut self) -> io::Result<Vec<u8>> {
        if self.left > MAX_DESCRIPTION_BYTES {
            return Err(malformed("a long name or PAX header is larger than 1 MiB"));
        }
        let mut body = Vec::new();
        self.data().read_to_end(&mut body)?;
        Ok(body)
    }

    fn member(&mut self, header: &Header, description: Description) -> io::Result<Member> {
        let mut path = description.path.unwrap_or_else(|| header.path());
        let mut link = description.link.unwrap_or_else(|| header.link());
        let (mut uid, mut gid) = (header.uid()?, header.gid()?);
        let mut mtime = header.mtime()?.saturating_mul(1_000_000_000);
        let mut xattrs = BTreeMap::new();
        let mut sparse = BTreeMap::new();
        for (key, value) in description.pax {
            match key.as_str() {
                "path" => path = value,
                "linkpath" => link = value,
                "uid" => uid = number(&value)?,
                "gid" => gid = number(&value)?,
                "size" => self.begin(number(&value)?)?,
                "mtime" => mtime = pax_time(&value)?,
                _ => {
                    if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
                        xattrs.insert(name.to_owned(), value);
                    } else if let Some(name) = key.strip_prefix("GNU.sparse.") {
                        sparse.insert(name.to_owned(), value);
                    }
                }
            }
        }
        if let Some(name) = sparse.get("name") {
            path.clone_from(name);
        }
        // The last number says "unchanged" to the kernel.
        // The largest number means "leave it as it is" to the kernel.
        let id = |value: u64| {
            let id = u32::try_from(value).ok().filter(|id| *id != u32::MAX);
            id.ok_or_else(|| malformed("a user or group id is too large"))
        };
        let flag = match header.flag() {
            // Before POSIX a directory was a file whose name ends in a slash.
            0 | b'0' if path.ends_with(b"/") => b'5',
            flag => flag,
        };
        let kind = match flag {
            0 | b'0' | b'7' => MemberKind::File(self.content(&sparse)?),
            b'S' => MemberKind::File(self.gnu_sparse(header)?),
            b'1' => MemberKind::Hardlink(link),
            b'2' => MemberKind::Symlink(link),
            b'3' => MemberKind::CharDevice {
                major: header.major()?,
                minor: header.minor()?,
            },
            b'4' => MemberKind::BlockDevice {
                major: header.major()?,
                minor: header.minor()?,
            },
            b'5' => MemberKind::Directory,
            b'6' => MemberKind::Fifo,
            _ => return Err(malformed("it has an entry of an unknown type")),
        };
        if path.is_empty() || path.contains(&0) {
            return Err(malformed("it has an entry without a proper name"));
        }
        Ok(Member {
            path,
            kind,
            mode: header.mode()?,
            uid: id(uid)?,
            gid: id(gid)?,
            mtime,
            xattrs,
        })
    }

    fn content(&mut self, sparse: &BTreeMap<String, Vec<u8>>) -> io::Result<Content> {
        let size = self.left;
        let real_size = match sparse.get("realsize").or_else(|| sparse.get("size")) {
            Some(value) => number(value)?,
            None => size,
        };
        let extents = if sparse.get("major").is_some_and(|major| major == b"1") {
            Some(self.sparse_map()?)
        } else if let Some(map) = sparse.get("map") {
            Some(pairs(
                map.split(|byte| *byte == b',')
                    .map(number)
                    .collect::<io::Result<_>>()?,
            )?)
        } else if sparse.contains_key("offset") {
            return Err(malformed(
                "it has a sparse file of format 0.0, which is not supported",
            ));
        } else {
            None
        };
        self.checked(Content {
            size: real_size,
            extents,
        })
    }

    /// PAX 1.0: decimal lines before the content, padded to a block.
    fn sparse_map(&mut self) -> io::Result<Vec<(u64, u64)>> {
        let mut numbers = Vec::new();
        let mut digits = Vec::new();
        let mut expected = 1;
        while numbers.len() < expected {
            let mut block = [0; BLOCK];
            self.data().read_exact(&mut block)?;
            for byte in block {
                match byte {
                    b'\n' if numbers.len() < expected => {
                        numbers.push(number(&digits)?);
                        digits.clear();
                        if numbers.len() == 1 {
                            let count = usize::try_from(numbers[0]).unwrap_or(usize::MAX);
                            if count > MAX_SPARSE_EXTENTS {
                                return Err(malformed("it has a sparse file of too many pieces"));
                            }
                            expected = 1 + 2 * count;
                        }
                    }
                    digit if numbers.len() < expected && digits.len() < MAX_DIGITS => digits.push(digit),
                    _ if numbers.len() < expected => return Err(malformed("it has a number that is none")),
                    _ => {}
                }
            }
        }
        numbers.remove(0);
        pairs(numbers)
    }

    /// GNU's own form: extents in the header and in blocks after it, which the size does not count.
    fn gnu_sparse(&mut self, header: &Header) -> io::Result<Content> {
        let mut numbers = octal_list(&header.bytes()[386..482])?;
        let mut more = header.bytes()[482] != 0;
        while more {
            let mut block = [0; BLOCK];
            self.input.read_exact(&mut block)?;
            numbers.extend(octal_list(&block[..504])?);
            more = block[504] != 0;
            if numbers.len() > 2 * MAX_SPARSE_EXTENTS {
                return Err(malformed("it has a sparse file of too many pieces"));
            }
        }
        let size = octal_list(&header.bytes()[483..495])?
            .first()
            .copied()
            .unwrap_or_default();
        let extents = Some(pairs(numbers)?);
        self.checked(Content { size, extents })
    }

    /// The pieces have to lie in the file in order and to be there.
    fn checked(&self, content: Content) -> io::Result<Content> {
        let Some(extents) = &content.extents else {
            return Ok(content);
        };
        let mut end = 0;
        let mut stored = 0u64;
        for (offset, length) in extents {
            let next = offset
                .checked_add(*length)
                .filter(|next| *offset >= end && *next <= content.size);
            end = next.ok_or_else(|| malformed("it has a sparse file whose pieces don't fit"))?;
            stored += length;
        }
        if stored > self.left {
            return Err(malformed("it has a sparse file whose pieces are missing"));
        }
        Ok(content)
    }
}

/// The stored bytes of an entry.
pub struct Data<'a, R>(&'a mut Reader<R>);

impl<R: Read> Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.0.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.0.input.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(malformed("it ends inside an entry"));
        }
        self.0.left -= read as u64;
        Ok(read)
    }
}

pub(super) fn malformed(reason: &'static str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the archive is malformed: {reason}"),
    )
}

fn until_nul(mut name: Vec<u8>) -> Vec<u8> {
    if let Some(end) = name.iter().position(|byte| *byte == 0) {
        name.truncate(end);
    }
    name
}

/// `LENGTH KEY=VALUE\n`, values may hold anything.
fn parse_pax(mut body: &[u8]) -> io::Result<Vec<(String, Vec<u8>)>> {
    let broken = || malformed("it has a broken PAX header");
    let mut records = Vec::new();
    while !body.is_empty() && body[0] != 0 {
        let space = body.iter().position(|byte| *byte == b' ').ok_or_else(broken)?;
        let length = usize::try_from(number(&body[..space])?).map_err(|_| broken())?;
        let record = body.get(space + 1..length).ok_or_else(broken)?;
        let record = record.strip_suffix(b"\n").ok_or_else(broken)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
        let key = std::str::from_utf8(&record[..equals]).map_err(|_| broken())?;
        records.push((key.to_owned(), record[equals + 1..].to_vec()));
        body = &body[length..];
    }
    Ok(records)
}

fn number(text: impl AsRef<[u8]>) -> io::Result<u64> {
    std::str::from_utf8(text.as_ref())
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| malformed("it has a number that is none"))
}

/// Decimal seconds, with a fraction or a sign.
fn pax_time(value: &[u8]) -> io::Result<i64> {
    let broken = || malformed("it has a time that is none");
    let text = std::str::from_utf8(value).map_err(|_| broken())?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = seconds.starts_with('-');
    let seconds: i64 = seconds.parse().map_err(|_| broken())?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let fraction: i64 = digits.parse().map_err(|_| broken())?;
    let fraction = if negative { -fraction } else { fraction };
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(fraction))
}

fn pairs(numbers: Vec<u64>) -> io::Result<Vec<(u64, u64)>> {
    if !numbers.len().is_multiple_of(2) {
        return Err(malformed("it has a sparse file with half a piece"));
    }
    Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

#[cfg(test)]
mod tests;
