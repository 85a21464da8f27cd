//! What an extraction leaves to be done.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::super::attributes::mtime_stamps;
use super::super::inroot::Root;

/// What is left to do, and what a layer's lower tree decides.
#[derive(Debug, Default)]
pub struct Applied {
    /// Directories without an entry of their own.
    pub implied: BTreeSet<PathBuf>,
    pub whiteouts: Vec<PathBuf>,
    /// Hardlinks, name and target, to what the archive does not have.
    pub links: Vec<(PathBuf, PathBuf)>,
    pub dir_times: BTreeMap<PathBuf, i64>,
}

impl Applied {
    /// A directory was moved, and with it whatever is noted below it.
    pub(super) fn rebase(&mut self, from: &Path, to: &Path) {
        let moved = |path: &PathBuf| match path.strip_prefix(from) {
            Ok(rest) if !rest.as_os_str().is_empty() => to.join(rest),
            _ => path.clone(),
        };
        self.implied = self.implied.iter().map(moved).collect();
        self.whiteouts = self.whiteouts.iter().map(moved).collect();
        self.links = self
            .links
            .iter()
            .map(|(path, target)| (moved(path), moved(target)))
            .collect();
        self.dir_times = self
            .dir_times
            .iter()
            .map(|(path, time)| (moved(path), *time))
            .collect();
    }

    /// Sets the directories' times, deepest first.
    pub fn set_dir_times(&self, root: &Root) -> io::Result<()> {
        for (path, time) in self.dir_times.iter().rev() {
            match root.open_dir(path) {
                Ok(dir) => rustix::fs::futimens(&dir, &mtime_stamps(*time))?,
                // A later entry replaced it.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
