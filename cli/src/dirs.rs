//! Where things lie on this machine when nobody says.

use std::path::PathBuf;

/// The server's data: `/var/lib/layeryard` for root, else `$XDG_DATA_HOME/layeryard`.
pub(crate) fn default_data_dir() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/layeryard"));
    }
    // The XDG specification: relative paths are invalid and ignored.
    let xdg = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let base = xdg.or_else(|| Some(std::env::home_dir()?.join(".local/share")))?;
    Some(base.join("layeryard"))
}
