//! Writes tar archives whose bytes depend on nothing but the entries: ustar where it fits, PAX for the rest.
//!
//! Part of layer format 1: what changes a byte here changes every digest (see `layer::FORMAT`).

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

const BLOCK: usize = 512;
const NAME_LEN: usize = 100;
/// Limits of the octal fields: 7 and 11 digits.
const SHORT_LIMIT: u64 = 1 << 21;
const LONG_LIMIT: u64 = 1 << 33;
/// Two empty blocks end the archive.
const TRAILER: [u8; 2 * BLOCK] = [0; 2 * BLOCK];
/// The name of the entry that holds PAX records; readers ignore it.
const PAX_NAME: &[u8] = b"PaxHeader";
const XATTR_PREFIX: &str = "SCHILY.xattr.";

/// One member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Relative, without `./`; a directory's ends in `/`.
    pub path: Vec<u8>,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: u64,
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File {
        size: u64,
    },
    /// To the path of an earlier entry.
    Hardlink {
        target: Vec<u8>,
    },
    Symlink {
        target: Vec<u8>,
    },
    Directory,
    Fifo,
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
}

/// Writes entries to `W`; [`TarWriter::finish`] ends the archive.
pub(super) struct TarWriter<W> {
    out: W,
}

impl<W: Write> TarWriter<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out }
    }

    /// An entry without content.
    pub(super) fn append(&mut self, entry: &Entry) -> io::Result<()> {
        debug_assert!(!matches!(entry.kind, Kind::File { size } if size > 0));
        self.header(entry)
    }

    /// A file; `data` has to give exactly the size that the entry names.
    pub(super) fn append_file(&mut self, entry: &Entry, data: impl Read) -> io::Result<()> {
        let Kind::File { size } = entry.kind else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        self.header(entry)?;
        let copied = io::copy(&mut data.take(size), &mut self.out)?;
        if copied != size {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        self.pad(size)
    }

    /// Ends the archive and gives the writer back.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&TRAILER)?;
        Ok(self.out)
    }

    fn header(&mut self, entry: &Entry) -> io::Result<()> {
        let records = pax_records(entry);
        if !records.is_empty() {
            let body = encode_records(&records);
            let mut header = Header::new(PAX_NAME, b'x');
            header.number(124, 12, body.len() as u64);
            self.out.write_all(&header.finish())?;
            self.out.write_all(&body)?;
            self.pad(body.len() as u64)?;
        }
        self.out.write_all(&ustar(entry))
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let rest = (size % BLOCK as u64) as usize;
        if rest == 0 {
            return Ok(());
        }
        self.out.write_all(&[0; BLOCK][rest..])
    }
}

fn ustar(entry: &Entry) -> [u8; BLOCK] {
    let (flag, size, link, device): (u8, u64, &[u8], Option<(u32, u32)>) = match &entry.kind {
        Kind::File { size } => (b'0', *size, b"", None),
        Kind::Hardlink { target } => (b'1', 0, target, None),
        Kind::Symlink { target } => (b'2', 0, target, None),
        Kind::CharDevice { major, minor } => (b'3', 0, b"", Some((*major, *minor))),
        Kind::BlockDevice { major, minor } => (b'4', 0, b"", Some((*major, *minor))),
        Kind::Directory => (b'5', 0, b"", None),
        Kind::Fifo => (b'6', 0, b"", None),
    };
    let mut header = Header::new(&entry.path, flag);
    header.number(100, 8, u64::from(entry.mode & 0o7777));
    header.number(108, 8, u64::from(entry.uid));
    header.number(116, 8, u64::from(entry.gid));
    header.number(124, 12, size);
    header.number(136, 12, entry.mtime);
    header.text(157, link);
    let (major, minor) = device.unwrap_or_default();
    header.number(329, 8, u64::from(major));
    header.number(337, 8, u64::from(minor));
    header.finish()
}

/// What the plain header can't hold, sorted by key.
fn pax_records(entry: &Entry) -> BTreeMap<String, Vec<u8>> {
    let mut records = BTreeMap::new();
    if !fits(&entry.path) {
        records.insert("path".to_owned(), entry.path.clone());
    }
    if let Kind::Hardlink { target } | Kind::Symlink { target } = &entry.kind
        && !fits(target)
    {
        records.insert("linkpath".to_owned(), target.clone());
    }
    let mut number = |key: &str, value: u64, limit: u64| {
        if value >= limit {
            records.insert(key.to_owned(), value.to_string().into_bytes());
        }
    };
    number("uid", u64::from(entry.uid), SHORT_LIMIT);
    number("gid", u64::from(entry.gid), SHORT_LIMIT);
    number("mtime", entry.mtime, LONG_LIMIT);
    if let Kind::File { size } = entry.kind {
        number("size", size, LONG_LIMIT);
    }
    for (name, value) in &entry.xattrs {
        records.insert(format!("{XATTR_PREFIX}{name}"), value.clone());
    }
    records
}

fn fits(name: &[u8]) -> bool {
    name.len() <= NAME_LEN && name.is_ascii()
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn encode_records(records: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        body.extend_from_slice(format!("{length} {key}=").as_bytes());
        body.extend_from_slice(value);
        body.push(b'\n');
    }
    body
}

/// A ustar header block in the making.
struct Header([u8; BLOCK]);

impl Header {
    fn new(name: &[u8], flag: u8) -> Self {
        let mut header = Self([0; BLOCK]);
        header.text(0, name);
        for (at, width) in [
            (100, 8),
            (108, 8),
            (116, 8),
            (124, 12),
            (136, 12),
            (329, 8),
            (337, 8),
        ] {
            header.number(at, width, 0);
        }
        header.0[156] = flag;
        header.0[257..265].copy_from_slice(b"ustar\x0000");
        header
    }

    /// At most 100 bytes; what is cut off or not ASCII stands in a PAX record.
    fn text(&mut self, at: usize, text: &[u8]) {
        for (slot, byte) in self.0[at..at + NAME_LEN].iter_mut().zip(text) {
            *slot = if byte.is_ascii() { *byte } else { b'_' };
        }
    }

    /// Octal digits and a NUL; zero if the number stands in a PAX record.
    fn number(&mut self, at: usize, width: usize, value: u64) {
        let digits = width - 1;
        let value = if value >> (3 * digits) == 0 { value } else { 0 };
        let text = format!("{value:0digits$o}\0");
        self.0[at..at + width].copy_from_slice(text.as_bytes());
    }

    fn finish(mut self) -> [u8; BLOCK] {
        self.0[148..156].copy_from_slice(b"        ");
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.0[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use oci::Digest;

    use super::*;

    fn entry(path: &str, kind: Kind) -> Entry {
        let mode = if matches!(kind, Kind::Directory) {
            0o755
        } else {
            0o644
        };
        Entry {
            path: path.as_bytes().to_vec(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: 1_600_000_000,
            xattrs: BTreeMap::new(),
        }
    }

    fn archive() -> Vec<u8> {
        let mut tar = TarWriter::new(Vec::new());
        tar.append(&entry("etc/", Kind::Directory)).unwrap();
        tar.append_file(&entry("etc/motd", Kind::File { size: 3 }), &b"hi\n"[..])
            .unwrap();
        let link = |target: &str| target.as_bytes().to_vec();
        tar.append(&entry(
            "etc/same",
            Kind::Hardlink {
                target: link("etc/motd"),
            },
        ))
        .unwrap();
        tar.append(&entry(
            "etc/soft",
            Kind::Symlink {
                target: link(&"t/".repeat(70)),
            },
        ))
        .unwrap();
        tar.append(&entry("dev/null", Kind::CharDevice { major: 1, minor: 3 }))
            .unwrap();
        let mut odd = entry(&format!("{}/ü", "d".repeat(120)), Kind::File { size: 0 });
        odd.uid = 3_000_000;
        odd.mode = 0o4755;
        odd.xattrs
            .insert("security.capability".into(), vec![1, 0, 0, 2, 0]);
        odd.xattrs.insert("user.a".into(), b"b=c".to_vec());
        tar.append(&odd).unwrap();
        tar.finish().unwrap()
    }

    /// Layer format 1. A change here is a new format.
    #[test]
    fn bytes_are_golden() {
        assert_eq!(
            Digest::sha256(&archive()).hex(),
            "539b0b22c0039dace7a0f84bb1120da66640eebd776f005e2f3042c6c11fc32e"
        );
    }

    #[test]
    fn another_reader_reads_the_same() {
        let archive = archive();
        let mut reader = tar::Archive::new(&archive[..]);
        let mut names = Vec::new();
        for entry in reader.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_string_lossy().into_owned();
            let extensions: Vec<String> = entry
                .pax_extensions()
                .unwrap()
                .into_iter()
                .flatten()
                .map(|record| record.unwrap().key().unwrap().to_owned())
                .collect();
            let link = entry
                .link_name()
                .unwrap()
                .map(|link| link.to_string_lossy().into_owned());
            names.push((name, link, entry.header().uid().unwrap(), extensions.join(" ")));
        }
        let none = String::new();
        let long = format!("{}/ü", "d".repeat(120));
        assert_eq!(
            names,
            [
                ("etc/".into(), None, 0, none.clone()),
                ("etc/motd".into(), None, 0, none.clone()),
                ("etc/same".into(), Some("etc/motd".into()), 0, none.clone()),
                ("etc/soft".into(), Some("t/".repeat(70)), 0, "linkpath".into()),
                ("dev/null".into(), None, 0, none),
                (
                    long,
                    None,
                    3_000_000,
                    "SCHILY.xattr.security.capability SCHILY.xattr.user.a path uid".into()
                ),
            ]
        );
    }

    #[test]
    fn a_file_that_is_too_short_is_an_error() {
        let mut tar = TarWriter::new(Vec::new());
        let error = tar
            .append_file(&entry("a", Kind::File { size: 4 }), &b"abc"[..])
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_record_counts_its_own_length() {
        // 96 bytes of value make the length grow from two digits to three.
        for size in [1, 92, 93, 94, 95, 96, 990] {
            let body = encode_records(&BTreeMap::from([("k".to_owned(), vec![b'v'; size])]));
            let text = String::from_utf8(body).unwrap();
            assert_eq!(
                text.split(' ').next().unwrap().parse::<usize>().unwrap(),
                text.len()
            );
        }
    }
}
