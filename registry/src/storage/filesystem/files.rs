//! The registry's own records, below `meta/`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Filesystem, Result, blocking, remove_if_there, sync_directory};
use crate::storage::Files;

/// What a file is called until it is whole.
const PARTIAL: &str = ".partial";

#[async_trait]
impl Files for Filesystem {
    async fn put_file(&self, name: &str, data: Bytes) -> Result<()> {
        let path = self.root.join(name);
        let store = self.clone();
        blocking(move || write(&path, &store.root, &data).map_err(store.failed("writing a record"))).await
    }

    async fn get_file(&self, name: &str) -> Result<Option<Bytes>> {
        let (path, store) = (self.root.join(name), self.clone());
        blocking(move || match fs::read(path) {
            Ok(data) => Ok(Some(data.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(store.failed("reading a record")(error)),
        })
        .await
    }

    async fn list_files(&self, prefix: &str) -> Result<Vec<String>> {
        let (prefix, store) = (prefix.to_owned(), self.clone());
        blocking(move || {
            let mut names = Vec::new();
            // The prefix may end within a name: its directory is walked.
            let directory = prefix.rsplit_once('/').map_or("", |(directory, _)| directory);
            walk(&store.root, &store.root.join(directory), &mut names)
                .map_err(store.failed("listing records"))?;
            names.retain(|name| name.starts_with(&prefix));
            names.sort_unstable();
            Ok(names)
        })
        .await
    }

    async fn delete_file(&self, name: &str) -> Result<()> {
        let (path, store) = (self.root.join(name), self.clone());
        blocking(move || remove_if_there(&path).map_err(store.failed("deleting a record"))).await
    }
}

fn write(path: &Path, root: &Path, data: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(root);
    if !directory.is_dir() {
        fs::create_dir_all(directory)?;
        for made in directory
            .ancestors()
            .skip(1)
            .take_while(|made| made.starts_with(root))
        {
            sync_directory(made)?;
        }
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(PARTIAL);
    let partial = PathBuf::from(partial);
    let mut file = File::create(&partial)?;
    file.write_all(data)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    sync_directory(directory)
}

fn walk(root: &Path, directory: &Path, names: &mut Vec<String>) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            walk(root, &path, names)?;
        } else if let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str)
            && !name.ends_with(PARTIAL)
        {
            names.push(name.to_owned());
        }
    }
    Ok(())
}
