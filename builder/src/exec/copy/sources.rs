//! A COPY's source patterns to paths.

use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType};

use super::{CopyContext, CopyError, Origin};
use crate::context::pattern::Pattern;
use crate::plan::Copy;
use crate::snapshot::file_type;

/// One source: a path that exists, links followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// The name it has in a destination directory.
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) is_dir: bool,
}

/// All sources of a COPY, in the order of the patterns, each pattern's sorted.
pub(super) fn list(origin: &Origin, copy: &Copy) -> Result<Vec<Source>, CopyError> {
    let mut sources = Vec::new();
    for text in &copy.sources {
        let pattern = Pattern::parse(text).map_err(|error| CopyError::Pattern {
            pattern: text.clone(),
            reason: error.to_string(),
        })?;
        match pattern.literal() {
            Some(path) => {
                let found = source(origin, Path::new(&path))?;
                sources.push(found.ok_or_else(|| not_found(origin, text))?);
            }
            None => {
                let mut paths = Vec::new();
                matching(origin, &pattern, "", &mut paths)?;
                paths.sort();
                for path in paths {
                    sources.extend(source(origin, Path::new(&path))?);
                }
            }
        }
    }
    Ok(sources)
}

fn source(origin: &Origin, path: &Path) -> Result<Option<Source>, CopyError> {
    let not_there = |error: &std::io::Error| {
        matches!(
            error.kind(),
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
        )
    };
    let resolved = match origin.root.resolve(path, true) {
        Err(error) if not_there(&error) => return Ok(None),
        result => result.copying("resolve", path)?,
    };
    let stat = match origin.root.stat(&resolved) {
        Err(error) if not_there(&error) => return Ok(None),
        result => result.copying("read the metadata of", path)?,
    };
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    Ok(stat.map(|stat| Source {
        name,
        path: resolved,
        is_dir: file_type(&stat) == FileType::Directory,
    }))
}

/// Walks only directories in which something could match.
fn matching(origin: &Origin, pattern: &Pattern, dir: &str, found: &mut Vec<String>) -> Result<(), CopyError> {
    let opened = origin.root.open_dir(Path::new(dir)).copying("open", dir)?;
    for entry in Dir::read_from(&opened).copying("list", dir)? {
        let entry = entry.copying("list", dir)?;
        // A name that is no text can't be matched by a pattern that is.
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        if matches!(name, "." | "..") {
            continue;
        }
        let path = if dir.is_empty() {
            name.to_owned()
        } else {
            format!("{dir}/{name}")
        };
        if pattern.matches(&path) {
            found.push(path.clone());
        }
        let is_dir = origin
            .root
            .stat(Path::new(&path))
            .copying("read the metadata of", &path)?
            .is_some_and(|stat| file_type(&stat) == FileType::Directory);
        if is_dir && pattern.may_match_below(&path) {
            matching(origin, pattern, &path, found)?;
        }
    }
    Ok(())
}

fn not_found(origin: &Origin, pattern: &str) -> CopyError {
    let place = if origin.is_context {
        "the build context (or .dockerignore excludes it)"
    } else {
        "the image it is copied from"
    };
    CopyError::NotFound {
        pattern: pattern.to_owned(),
        place,
    }
}
