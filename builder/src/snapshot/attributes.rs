//! A file's metadata as far as images know it, and how to read and write it through descriptors.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};

/// Everything of overlay's own, escaped names of a step's own `user.overlay.*` included.
pub(crate) const OVERLAY_XATTRS: &str = "user.overlay.";
pub(crate) const OVERLAY_XATTRS_TRUSTED: &str = "trusted.overlay.";
pub(crate) const CAPABILITY_XATTR: &str = "security.capability";
pub(crate) const USER_XATTRS: &str = "user.";

/// Size of the buffers tried first; both grow on ERANGE.
const LIST_BUFFER: usize = 1024;
const VALUE_BUFFER: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Permissions with set-id and sticky bits, 07777.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Those that images keep, by name.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl Attributes {
    pub fn of(stat: &Stat, xattrs: BTreeMap<String, Vec<u8>>) -> Self {
        Self {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            xattrs,
        }
    }

    /// Of an open file or directory.
    pub fn read(file: impl AsFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(&file)?;
        Ok(Self::of(&stat, image_xattrs(&file)?.kept))
    }

    /// Writes owner, then mode (chown clears set-id bits), then extended attributes.
    pub fn write(&self, file: impl AsFd) -> io::Result<()> {
        rustix::fs::fchown(
            &file,
            Some(Uid::from_raw(self.uid)),
            Some(Gid::from_raw(self.gid)),
        )?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(self.mode))?;
        for (name, value) in &self.xattrs {
            rustix::fs::fsetxattr(&file, name.as_str(), value, XattrFlags::empty())?;
        }
        Ok(())
    }
}

/// A file's extended attributes, sorted by what an image does with them.
#[derive(Debug, Default)]
pub(crate) struct ImageXattrs {
    pub kept: BTreeMap<String, Vec<u8>>,
    /// overlay's `opaque` marker.
    pub opaque: bool,
    /// overlay names another path or file as this one's content: nothing of ours writes that.
    pub redirected: bool,
    /// Names that images don't carry.
    pub dropped: Vec<String>,
}

/// Reads the extended attributes of an open regular file or directory (no other type can have those that count).
pub(crate) fn image_xattrs(file: impl AsFd) -> io::Result<ImageXattrs> {
    let mut xattrs = ImageXattrs::default();
    for name in list(&file)? {
        if let Some(overlay) = name.strip_prefix(OVERLAY_XATTRS) {
            xattrs.opaque |= overlay == "opaque" && get(&file, &name)?.first() == Some(&b'y');
            xattrs.redirected |= matches!(overlay, "redirect" | "metacopy");
        } else if name.starts_with(USER_XATTRS) || name == CAPABILITY_XATTR {
            let value = get(&file, &name)?;
            xattrs.kept.insert(name, value);
        } else {
            xattrs.dropped.push(name);
        }
    }
    Ok(xattrs)
}

fn list(file: impl AsFd) -> io::Result<Vec<String>> {
    let mut buffer = vec![0; LIST_BUFFER];
    let used = loop {
        match rustix::fs::flistxattr(&file, &mut buffer[..]) {
            Ok(used) => break used,
            Err(rustix::io::Errno::RANGE) => buffer.resize(buffer.len() * 4, 0),
            Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(errno) => return Err(errno.into()),
        }
    };
    Ok(buffer[..used]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect())
}

fn get(file: impl AsFd, name: &str) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; VALUE_BUFFER];
    loop {
        match rustix::fs::fgetxattr(&file, name, &mut buffer[..]) {
            Ok(used) => {
                buffer.truncate(used);
                return Ok(buffer);
            }
            Err(rustix::io::Errno::RANGE) => buffer.resize(buffer.len() * 8, 0),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Modification time in nanoseconds since 1970; what file systems know after the year 2262 counts as then.
pub(crate) fn mtime_of(stat: &Stat) -> i64 {
    stat.st_mtime
        .saturating_mul(1_000_000_000)
        .saturating_add(stat.st_mtime_nsec as i64)
}

pub(crate) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Sets a modification time and leaves the access time.
pub(crate) fn mtime_stamps(nanoseconds: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT as _,
        },
        last_modification: Timespec {
            tv_sec: nanoseconds.div_euclid(1_000_000_000),
            tv_nsec: nanoseconds.rem_euclid(1_000_000_000),
        },
    }
}

/// Sets the modification time of a name in a directory, not following a link.
pub(crate) fn set_mtime(dir: impl AsFd, name: &[u8], nanoseconds: i64) -> io::Result<()> {
    Ok(rustix::fs::utimensat(
        dir,
        name,
        &mtime_stamps(nanoseconds),
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_any_century_are_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mtime_at = |seconds| {
            let mut stamps = mtime_stamps(0);
            stamps.last_modification.tv_sec = seconds;
            rustix::fs::futimens(file.as_file(), &stamps).unwrap();
            mtime_of(&rustix::fs::fstat(file.as_file()).unwrap())
        };
        assert_eq!(mtime_at(-5), -5_000_000_000);
        assert!(
            mtime_at(13_000_000_000) >= 9_000_000_000_000_000_000,
            "in the year 2381"
        );
    }
}
