//! The constant directories at the bottom of every tree.
//!
//! A step needs /proc, /sys, /dev and three files in /etc to mount over. Making them in the step's upper directory
//! would put them into the image, so they lie in a lower of their own, which the differ never sees.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::SnapshotError;
use super::error::IoContext;

/// Directories and files of the stub, relative to its root.
pub(crate) const STUB_DIRS: [&str; 4] = ["proc", "sys", "dev", "etc"];
pub(crate) const STUB_FILES: [&str; 3] = ["etc/resolv.conf", "etc/hosts", "etc/hostname"];

const DIR_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;

/// Makes what is missing; harmless if all is there.
pub(super) fn make(stub: &Path) -> Result<(), SnapshotError> {
    for dir in std::iter::once(stub.to_owned()).chain(STUB_DIRS.iter().map(|name| stub.join(name))) {
        fs::create_dir_all(&dir).on("make the directory", &dir)?;
        fs::set_permissions(&dir, Permissions::from_mode(DIR_MODE)).on("change the mode of", &dir)?;
    }
    for name in STUB_FILES {
        let file = stub.join(name);
        File::create(&file).on("make the file", &file)?;
        fs::set_permissions(&file, Permissions::from_mode(FILE_MODE)).on("change the mode of", &file)?;
    }
    Ok(())
}
