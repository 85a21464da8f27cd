//! Users from an htpasswd file, read again when it changes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::password::StoredPassword;
use crate::watch::Stamp;

/// A file of `NAME:HASH` lines.
pub(super) struct Htpasswd {
    path: PathBuf,
    stamp: Option<Stamp>,
    users: BTreeMap<String, StoredPassword>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum HtpasswdError {
    #[error("cannot read the password file {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("password file {}, line {line}: {problem}", path.display())]
    Line {
        path: PathBuf,
        line: usize,
        problem: String,
    },
}

impl Htpasswd {
    pub(super) fn open(path: &Path) -> Result<Self, HtpasswdError> {
        let mut file = Self {
            path: path.to_owned(),
            stamp: None,
            users: BTreeMap::new(),
        };
        file.refresh()?;
        Ok(file)
    }

    /// Reads the file again if it has changed; what was read before stays if it is broken. True: there is news.
    pub(super) fn refresh(&mut self) -> Result<bool, HtpasswdError> {
        let failed = |source| HtpasswdError::Read {
            path: self.path.clone(),
            source,
        };
        let stamp = Stamp::of(&self.path).map_err(failed)?;
        if self.stamp == Some(stamp) {
            return Ok(false);
        }
        // Also when it is broken: it is told once, not every two seconds.
        self.stamp = Some(stamp);
        let text = std::fs::read_to_string(&self.path).map_err(failed)?;
        self.users = parse(&text).map_err(|(line, problem)| HtpasswdError::Line {
            path: self.path.clone(),
            line,
            problem,
        })?;
        Ok(true)
    }

    pub(super) fn users(&self) -> &BTreeMap<String, StoredPassword> {
        &self.users
    }
}

fn parse(text: &str) -> Result<BTreeMap<String, StoredPassword>, (usize, String)> {
    let mut users = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, hash) = line
            .split_once(':')
            .ok_or_else(|| (index + 1, "expected NAME:HASH".to_owned()))?;
        if name.is_empty() {
            return Err((index + 1, "the user has no name".to_owned()));
        }
        let stored =
            StoredPassword::new(hash).map_err(|error| (index + 1, format!("user {name:?}: {error}")))?;
        users.insert(name.to_owned(), stored);
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("htpasswd");
        let hash = bcrypt::hash("x", 4).unwrap();
        std::fs::write(&path, format!("# people\n\nanna:{hash}\n")).unwrap();
        let mut file = Htpasswd::open(&path).unwrap();
        assert_eq!(file.users().keys().collect::<Vec<_>>(), ["anna"]);
        assert!(!file.refresh().unwrap());
        std::fs::write(&path, format!("anna:{hash}\nbert:$apr1$weak$\n")).unwrap();
        let error = file.refresh().unwrap_err().to_string();
        assert!(
            error.contains("line 2") && error.contains("bert") && error.contains("htpasswd -B"),
            "{error}"
        );
        assert_eq!(file.users().len(), 1, "what was good stays");
        assert!(!file.refresh().unwrap(), "told once");
        std::fs::write(&path, format!("anna:{hash}\nbert:{hash}\n")).unwrap();
        assert!(file.refresh().unwrap());
        assert_eq!(file.users().len(), 2);
    }
}
