//! A Dockerfile's USER to numbers, by the image's own passwd and group files.
//!
//! The files are opened inside the root and read by us: the machine's name service has no say, and a link in
//! the image leads to the image.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use crate::spec::User;

/// Largest passwd or group file that is read.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Largest user or group number that means one: the last, -1, says "unchanged" to the kernel.
const ID_MAX: u32 = u32::MAX - 1;

const DEFAULT_HOME: &str = "/";

#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("the image's /etc/passwd has no user `{name}`")]
    NoUser { name: String },
    #[error("the image's /etc/group has no group `{name}`")]
    NoGroup { name: String },
    #[error("could not read the image's {path}: {source}")]
    Read { path: &'static str, source: io::Error },
}

/// Resolves `name[:group]`, with numbers for either, as Docker does; an empty text is the user with number 0.
///
/// A number without an entry is taken as it is, with group 0. Without a group in the text the user's
/// further groups are those that list the name.
pub fn resolve_user(root: BorrowedFd<'_>, text: &str) -> Result<User, UserError> {
    let passwd = read(root, "/etc/passwd")?;
    let (user_text, group_text) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let number = if user_text.is_empty() {
        Some(0)
    } else {
        parse_id(user_text)
    };
    // A name goes before the same text as a number: the first line that is either wins, as in Docker.
    let entry = passwd
        .lines()
        .filter_map(PasswdEntry::parse)
        .find(|entry| (!user_text.is_empty() && entry.name == user_text) || number == Some(entry.uid));
    let (uid, own_gid, home) = match (&entry, number) {
        (Some(entry), _) => (entry.uid, entry.gid, entry.home),
        (None, Some(number)) => (number, 0, DEFAULT_HOME),
        (None, None) => {
            return Err(UserError::NoUser {
                name: user_text.to_owned(),
            });
        }
    };
    let (gid, mut additional_gids) = match (group_text, &entry) {
        (Some(group), _) => (resolve_group(&read(root, "/etc/group")?, group)?, Vec::new()),
        (None, Some(entry)) => (own_gid, memberships(&read(root, "/etc/group")?, entry.name)),
        (None, None) => (own_gid, Vec::new()),
    };
    // Docker's list has the first group too, so that dropping it doesn't widen what a file's group denies.
    additional_gids.insert(0, gid);
    dedup(&mut additional_gids);
    Ok(User {
        uid,
        gid,
        additional_gids,
        umask: 0o022,
        home: Some(home.to_owned()),
    })
}

/// A group by name or number, for `--chown` as well.
pub fn resolve_group_in(root: BorrowedFd<'_>, text: &str) -> Result<u32, UserError> {
    resolve_group(&read(root, "/etc/group")?, text)
}

fn resolve_group(file: &str, text: &str) -> Result<u32, UserError> {
    let number = parse_id(text);
    let found = file.lines().filter_map(GroupEntry::parse);
    let found = found
        .into_iter()
        .find(|group| group.name == text || number == Some(group.gid));
    found
        .map(|group| group.gid)
        .or(number)
        .ok_or_else(|| UserError::NoGroup {
            name: text.to_owned(),
        })
}

fn memberships(file: &str, user: &str) -> Vec<u32> {
    let groups = file.lines().filter_map(GroupEntry::parse);
    groups
        .filter(|group| group.members.split(',').any(|member| member.trim() == user))
        .map(|group| group.gid)
        .collect()
}

fn dedup(gids: &mut Vec<u32>) {
    let mut seen = std::collections::BTreeSet::new();
    gids.retain(|gid| seen.insert(*gid));
}

fn parse_id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id <= ID_MAX)
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> PasswdEntry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields
            .next()
            .filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let uid = parse_id(fields.nth(1)?)?;
        let gid = parse_id(fields.next()?)?;
        let home = fields
            .nth(1)
            .filter(|home| !home.is_empty())
            .unwrap_or(DEFAULT_HOME);
        Some(Self { name, uid, gid, home })
    }
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> GroupEntry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields
            .next()
            .filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let gid = parse_id(fields.nth(1)?)?;
        Some(Self {
            name,
            gid,
            members: fields.next().unwrap_or_default(),
        })
    }
}

/// Empty if the image has no such file.
fn read(root: BorrowedFd<'_>, path: &'static str) -> Result<String, UserError> {
    let failed = |source: io::Error| UserError::Read { path, source };
    // NONBLOCK: a FIFO in its place must not make us wait.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let fd = match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        result => result.map_err(|errno| failed(errno.into()))?,
    };
    let stat = rustix::fs::fstat(&fd).map_err(|errno| failed(errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_size as u64 > FILE_BYTES_MAX
    {
        let message = "not a regular file of a sensible size";
        return Err(failed(io::Error::new(io::ErrorKind::InvalidData, message)));
    }
    let mut bytes = Vec::new();
    File::from(fd)
        .take(FILE_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    // Names are compared as text; a line in another encoding is no obstacle to the others.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::path::Path;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# comment\nbad line\napp:x:1000:1001::/home/app:\n1000:x:7:8::/seven:\n";
    const GROUP: &str = "root:x:0:\napp:x:1001:\naudio:x:29:other,app\nvideo:x:44:app\n";

    fn image(fill: impl FnOnce(&Path)) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        fill(root.path());
        root
    }

    fn resolve(root: &tempfile::TempDir, text: &str) -> Result<User, UserError> {
        resolve_user(File::open(root.path()).unwrap().as_fd(), text)
    }

    fn usual() -> tempfile::TempDir {
        image(|root| {
            std::fs::write(root.join("etc/passwd"), PASSWD).unwrap();
            std::fs::write(root.join("etc/group"), GROUP).unwrap();
        })
    }

    fn ids(user: User) -> (u32, u32, Vec<u32>, String) {
        (user.uid, user.gid, user.additional_gids, user.home.unwrap())
    }

    #[test]
    fn users_are_resolved_as_docker_does() {
        let root = usual();
        let of = |text: &str| ids(resolve(&root, text).unwrap());
        assert_eq!(of("app"), (1000, 1001, vec![1001, 29, 44], "/home/app".into()));
        assert_eq!(of("1000"), (1000, 1001, vec![1001, 29, 44], "/home/app".into()));
        assert_eq!(of("app:audio"), (1000, 29, vec![29], "/home/app".into()));
        assert_eq!(of("app:5000"), (1000, 5000, vec![5000], "/home/app".into()));
        assert_eq!(of("4242"), (4242, 0, vec![0], "/".into()));
        assert_eq!(of(""), (0, 0, vec![0], "/root".into()));
        assert!(matches!(resolve(&root, "nobody"), Err(UserError::NoUser { name }) if name == "nobody"));
        assert!(matches!(resolve(&root, "app:wheel"), Err(UserError::NoGroup { name }) if name == "wheel"));
        assert!(matches!(
            resolve(&root, "4294967295"),
            Err(UserError::NoUser { .. })
        ));
    }

    #[test]
    fn an_image_without_files_has_root_and_numbers() {
        let root = image(|_| ());
        assert_eq!(ids(resolve(&root, "").unwrap()), (0, 0, vec![0], "/".into()));
        assert_eq!(ids(resolve(&root, "5:6").unwrap()), (5, 6, vec![6], "/".into()));
        assert!(resolve(&root, "root").is_err());
    }

    #[test]
    fn links_lead_into_the_image_and_odd_files_are_refused() {
        let root = image(|root| {
            std::os::unix::fs::symlink("/etc/real", root.join("etc/passwd")).unwrap();
            std::fs::write(root.join("etc/real"), "inner:x:77:78::/in:\n").unwrap();
        });
        assert_eq!(resolve(&root, "inner").unwrap().uid, 77);
        assert!(resolve(&root, "daemon").is_err(), "a user of the machine");

        let fifo = image(|root| {
            nix::unistd::mkfifo(&root.join("etc/passwd"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        });
        assert!(matches!(resolve(&fifo, "root"), Err(UserError::Read { .. })));
    }
}
