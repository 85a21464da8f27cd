//! Finding the Dockerfile and its ignore file.
//!
//! Files that the context names by itself must lie in it: a checked-out repository can't make its Dockerfile a link to
//! a secret of the user's and so have it sent away. A file that the user names with `-f` may be anywhere.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use builder::context::ignore::IgnoreRules;
use client::api::SourceFile;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::failure::{Advice as _, Usage};

const DOCKERFILE: &str = "Dockerfile";
const IGNORE_FILE: &str = ".dockerignore";

/// Far above any that a person writes; a device or a disk image named by mistake is not read to its end.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Reads the Dockerfile and the rules of what is left out of the context.
pub(crate) fn read(context: &Path, file: Option<&Path>) -> anyhow::Result<(SourceFile, IgnoreRules)> {
    let directory = open_context(context)?;
    let (name, text, beside) = match file {
        None => default_dockerfile(&directory, context)?,
        Some(path) if path == Path::new("-") => {
            let text =
                read_text(io::stdin().lock()).context("cannot read the Dockerfile from standard input")?;
            (DOCKERFILE.to_owned(), text, None)
        }
        Some(path) => {
            let text = File::open(path)
                .and_then(read_text)
                .with_context(|| format!("cannot read the Dockerfile {}", path.display()))
                .hint(hint_for(path, context))?;
            let beside = with_suffix(path, IGNORE_FILE);
            (
                path.display().to_string(),
                text,
                read_beside(&beside)?.map(|text| (beside, text)),
            )
        }
    };
    let ignore = match beside {
        Some(found) => Some(found),
        None => read_below(&directory, context, Path::new(IGNORE_FILE))?
            .map(|text| (context.join(IGNORE_FILE), text)),
    };
    let rules = match ignore {
        Some((path, text)) => IgnoreRules::parse(&text).with_context(|| path.display().to_string())?,
        None => IgnoreRules::default(),
    };
    Ok((SourceFile { name, text }, rules))
}

type Beside = Option<(PathBuf, String)>;

fn default_dockerfile(directory: &File, context: &Path) -> anyhow::Result<(String, String, Beside)> {
    let text = read_below(directory, context, Path::new(DOCKERFILE))?
        .ok_or_else(|| anyhow!("there is no Dockerfile in {}", context.display()))
        .hint("name the file with -f FILE, `-f -` for standard input")?;
    let beside = with_suffix(Path::new(DOCKERFILE), IGNORE_FILE);
    let ignore = read_below(directory, context, &beside)?.map(|text| (context.join(beside), text));
    Ok((DOCKERFILE.to_owned(), text, ignore))
}

fn open_context(context: &Path) -> anyhow::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(context, flags, Mode::empty()) {
        Ok(directory) => Ok(directory.into()),
        Err(Errno::NOTDIR | Errno::NOENT) => Err(Usage(format!(
            "CONTEXT {} is not a directory: name the one that holds the files to build",
            context.display()
        ))
        .into()),
        Err(error) => Err(io::Error::from(error))
            .with_context(|| format!("cannot open the context {}", context.display())),
    }
}

/// Reads a file of the context; links may only lead to another place in it. None: it does not exist.
fn read_below(directory: &File, context: &Path, path: &Path) -> anyhow::Result<Option<String>> {
    let full = context.join(path);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat2(
        directory,
        path,
        flags,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
    );
    match opened {
        Ok(file) => {
            let text =
                read_text(File::from(file)).with_context(|| format!("cannot read {}", full.display()))?;
            Ok(Some(text))
        }
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::XDEV) => Err(anyhow!(
            "{} is a link that leads out of the context",
            full.display()
        ))
        .hint("if that is meant, name the file itself with -f"),
        Err(error) => Err(io::Error::from(error)).with_context(|| format!("cannot read {}", full.display())),
    }
}

fn read_beside(path: &Path) -> anyhow::Result<Option<String>> {
    match File::open(path).and_then(read_text) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn read_text(file: impl io::Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "it is larger than {} MiB",
            FILE_BYTES_MAX >> 20
        )));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8 text"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// `-f` is relative to the working directory; many expect the context.
fn hint_for(path: &Path, context: &Path) -> String {
    let inside = context.join(path);
    if inside.exists() {
        format!(
            "-f is relative to the working directory: use -f {}",
            inside.display()
        )
    } else {
        "-f FILE is relative to the working directory, `-f -` is standard input".into()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_dockerfiles_own_ignore_file_comes_first() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("Dockerfile"), "FROM scratch").unwrap();
        fs::write(at(".dockerignore"), "a").unwrap();
        let (file, rules) = read(directory.path(), None).unwrap();
        assert_eq!(
            (file.name.as_str(), file.text.as_str()),
            ("Dockerfile", "FROM scratch")
        );
        assert!(rules.is_ignored("a") && !rules.is_ignored("b"));
        fs::write(at("Dockerfile.dockerignore"), "b").unwrap();
        let (_, rules) = read(directory.path(), None).unwrap();
        assert!(!rules.is_ignored("a") && rules.is_ignored("b"));
    }

    #[test]
    fn a_context_cannot_name_files_outside() {
        let directory = tempfile::tempdir().unwrap();
        symlink("/etc/passwd", directory.path().join("Dockerfile")).unwrap();
        let error = read(directory.path(), None).unwrap_err();
        assert!(
            format!("{error:#}").contains("leads out of the context"),
            "{error:#}"
        );
        assert!(read(directory.path(), Some(Path::new("/etc/passwd"))).is_ok());
    }

    #[test]
    fn missing_files_are_explained() {
        let directory = tempfile::tempdir().unwrap();
        let error = format!("{:#}", read(directory.path(), None).unwrap_err());
        assert!(
            error.contains("there is no Dockerfile") && error.contains("-f FILE"),
            "{error}"
        );
        let error = read(&directory.path().join("absent"), None).unwrap_err();
        assert!(error.is::<Usage>());
    }
}
