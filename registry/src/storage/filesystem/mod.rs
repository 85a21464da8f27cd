//! Blobs as files.
//!
//! ```text
//! <data-dir>/
//!   store-id                           the store's UUID, as in the database
//!   blobs/sha256/<ab>/<hex>.<gen>      an object: its digest's hex, `ab` its first two digits, `gen` 16 random hex digits
//!   blobs/sha512/<ab>/<hex>.<gen>
//!   uploads/<id>                       the bytes of an upload session
//!   meta/…                             the registry's own records (trait `Files`)
//! ```
//!
//! Shard directories are all made and synced when the store is opened, so that a commit syncs exactly the file and
//! one directory: `fsync(file)`, `rename`, `fsync(shard directory)`, in this order.

mod files;
mod read;
mod space;
mod write;

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use oci::{Algorithm, Digest, Hasher};

use super::{
    BlobStore, ByteStream, ObjectName, Result, StorageError, Upload, UploadId, UploadLog, UploadWriter,
    blocking,
};
pub(super) use read::FileStream;
use space::Space;

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

/// A store under one directory, used by this process alone (the caller holds the directory's lock).
#[derive(Clone)]
pub(crate) struct Filesystem {
    root: Arc<Path>,
    /// What must stay free. None: nobody said.
    reserve: Option<u64>,
}

impl Filesystem {
    /// Opens the store, making its directories where they are missing.
    pub(crate) async fn open(root: &Path) -> Result<Self> {
        let store = Self {
            root: root.into(),
            reserve: None,
        };
        let made = store.clone();
        blocking(move || {
            made.make_directories()
                .map_err(made.failed("making its directories"))
        })
        .await?;
        Ok(store)
    }

    /// Takes no blobs that would leave fewer bytes free than this.
    pub(crate) fn with_reserve(self, bytes: Option<u64>) -> Self {
        Self {
            reserve: bytes,
            ..self
        }
    }

    /// To be called before bytes are written, on a thread that may block.
    fn require_space_for(&self, bytes: u64) -> Result<()> {
        let space = Space::at(&self.root).map_err(self.failed("asking for its free space"))?;
        let reserve = space.reserve(self.reserve);
        if space.free < reserve.saturating_add(bytes) {
            return Err(StorageError::Reserved {
                free: space.free,
                reserve,
            });
        }
        Ok(())
    }

    fn make_directories(&self) -> io::Result<()> {
        for algorithm in ALGORITHMS {
            let family = self.root.join("blobs").join(algorithm.name());
            fs::create_dir_all(&family)?;
            if fs::read_dir(&family)?.count() < 256 {
                for shard in 0..=255 {
                    match fs::create_dir(family.join(format!("{shard:02x}"))) {
                        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                        _ => {}
                    }
                }
                sync_directory(&family)?;
            }
        }
        fs::create_dir_all(self.root.join("uploads"))?;
        sync_directory(&self.root.join("blobs"))?;
        sync_directory(&self.root)
    }

    fn object_path(&self, key: &ObjectName) -> PathBuf {
        self.root.join(key.as_str())
    }

    fn upload_path(&self, upload: UploadId) -> PathBuf {
        self.root.join("uploads").join(upload.to_string())
    }

    fn failed(&self, operation: &'static str) -> impl Fn(io::Error) -> StorageError + 'static {
        let path = self.root.display().to_string();
        move |source| StorageError::Store {
            path: path.clone(),
            operation,
            source,
        }
    }

    /// The names in the first shard after the cursor that has any.
    fn page(&self, after: Option<&ObjectName>) -> io::Result<Vec<ObjectName>> {
        for algorithm in ALGORITHMS {
            for shard in 0..=255_u8 {
                let prefix = format!("blobs/{algorithm}/{shard:02x}/");
                // A page is a whole shard: the cursor's own is done.
                if after.is_some_and(|after| after.as_str() >= prefix.as_str()) {
                    continue;
                }
                let mut names = Vec::new();
                for entry in fs::read_dir(self.root.join(&prefix))? {
                    let file = entry?.file_name();
                    names.push(ObjectName::new(format!("{prefix}{}", file.to_string_lossy())));
                }
                if !names.is_empty() {
                    names.sort_unstable();
                    return Ok(names);
                }
            }
        }
        Ok(Vec::new())
    }

    fn adopt(&self, uuid: &str) -> io::Result<String> {
        let path = self.root.join("store-id");
        match fs::read_to_string(&path) {
            Ok(found) => return Ok(found.trim().to_owned()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) => {}
        }
        let mut file = File::create(self.root.join("store-id.new"))?;
        writeln!(file, "{uuid}")?;
        file.sync_all()?;
        fs::rename(self.root.join("store-id.new"), &path)?;
        sync_directory(&self.root)?;
        Ok(uuid.to_owned())
    }
}

#[async_trait]
impl BlobStore for Filesystem {
    fn new_name(&self, digest: &Digest) -> ObjectName {
        ObjectName::for_digest(digest)
    }

    async fn put(&self, upload: UploadId, key: &ObjectName, data: Vec<Bytes>) -> Result<()> {
        let (from, to) = (self.upload_path(upload), self.object_path(key));
        let store = self.clone();
        blocking(move || {
            store.require_space_for(length_of(&data))?;
            write::put(upload, &from, &to, &data)
        })
        .await
    }

    async fn open_upload(&self, upload: Upload, _: Box<dyn UploadLog>) -> Result<Box<dyn UploadWriter>> {
        let store = self.clone();
        if upload.offset == 0 {
            return Ok(Box::new(write::FileWriter::begin(store, upload.id)));
        }
        let writer = blocking(move || write::FileWriter::resume(store, upload.id, upload.offset)).await?;
        Ok(Box::new(writer))
    }

    async fn hash_upload(&self, upload: &Upload, algorithm: Algorithm) -> Result<Option<Hasher>> {
        let (path, length) = (self.upload_path(upload.id), upload.offset);
        let hashed = blocking(move || write::hash(&path, length, algorithm)).await;
        hashed.map(Some).map_err(|source| StorageError::Upload {
            upload: upload.id,
            operation: "hashing it again",
            source,
        })
    }

    async fn discard_upload(&self, upload: UploadId) -> Result<()> {
        let path = self.upload_path(upload);
        blocking(move || {
            remove_if_there(&path).map_err(|source| StorageError::Upload {
                upload,
                operation: "removing it",
                source,
            })
        })
        .await
    }

    async fn list_uploads(&self) -> Result<Vec<UploadId>> {
        let store = self.clone();
        blocking(move || {
            let list = || -> io::Result<Vec<UploadId>> {
                let mut ids = Vec::new();
                for entry in fs::read_dir(store.root.join("uploads"))? {
                    if let Some(Ok(id)) = entry?.file_name().to_str().map(str::parse) {
                        ids.push(id);
                    }
                }
                Ok(ids)
            };
            list().map_err(store.failed("listing uploads"))
        })
        .await
    }

    fn chunk_bytes_min(&self) -> Option<u64> {
        None
    }

    async fn read(&self, key: &ObjectName, range: Range<u64>) -> Result<ByteStream> {
        let file = read::open(&self.object_path(key), key).await?;
        Ok(Box::pin(FileStream::new(file, key.clone(), range)))
    }

    async fn size(&self, key: &ObjectName) -> Result<u64> {
        let (key, path) = (key.clone(), self.object_path(key));
        blocking(move || {
            let found = fs::metadata(&path).map_err(|source| StorageError::Object {
                key,
                operation: "looking at it",
                source,
            })?;
            Ok(found.len())
        })
        .await
    }

    async fn file(&self, key: &ObjectName) -> Result<Option<Arc<File>>> {
        read::open(&self.object_path(key), key).await.map(Some)
    }

    async fn free_bytes(&self) -> Result<Option<u64>> {
        let store = self.clone();
        let found =
            blocking(move || Space::at(&store.root).map_err(store.failed("asking for its free space")));
        Ok(Some(found.await?.free))
    }

    async fn require_space(&self) -> Result<()> {
        let store = self.clone();
        blocking(move || store.require_space_for(0)).await
    }

    async fn link(&self, _: &ObjectName) -> Result<Option<String>> {
        Ok(None)
    }

    async fn delete(&self, key: &ObjectName) -> Result<()> {
        let (key, path) = (key.clone(), self.object_path(key));
        blocking(move || {
            remove_if_there(&path).map_err(|source| StorageError::Object {
                key,
                operation: "deleting it",
                source,
            })
        })
        .await
    }

    async fn list(&self, after: Option<&ObjectName>) -> Result<Vec<ObjectName>> {
        let (store, after) = (self.clone(), after.cloned());
        blocking(move || {
            store
                .page(after.as_ref())
                .map_err(store.failed("listing objects"))
        })
        .await
    }

    async fn identity(&self, uuid: &str) -> Result<String> {
        let (store, uuid) = (self.clone(), uuid.to_owned());
        blocking(move || store.adopt(&uuid).map_err(store.failed("reading store-id"))).await
    }
}

fn length_of(data: &[Bytes]) -> u64 {
    data.iter().map(|piece| piece.len() as u64).sum()
}

/// Makes a directory's entries durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::suite;

    #[tokio::test]
    async fn it_passes_the_contract_suite() {
        let directory = tempfile::tempdir().unwrap();
        let store = Filesystem::open(directory.path()).await.unwrap();
        suite::run(&store).await;
        // Opening it again finds everything in place.
        Filesystem::open(directory.path()).await.unwrap();
        assert_eq!(store.list(None).await.unwrap(), []);
        assert_eq!(store.list_uploads().await.unwrap(), []);
    }
}
