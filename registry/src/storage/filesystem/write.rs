//! Writing: appending to uploads and making them objects.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::num::NonZeroU64;
use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use oci::{Algorithm, Hasher};
use rustix::fs::Advice;

use super::{
    Filesystem, ObjectName, Result, StorageError, UploadId, UploadWriter, blocking, length_of, sync_directory,
};
use crate::storage::{Settle, Settled};

/// The kernel is asked to begin writing out what came, so that the closing fsync finds little to do: first after so many
/// bytes, so that the disk is busy while a blob of 1 MiB still comes in …
const WRITE_BEHIND_BYTES_MIN: u64 = 256 * 1024;
/// … then, because each time costs something, after a growing share of the file, up to this many.
const WRITE_BEHIND_BYTES_MAX: u64 = 8 * 1024 * 1024;
const WRITE_BEHIND_SHARE: u64 = 4;

/// How much of a file is read at once to hash it.
const HASH_BUFFER_BYTES: usize = 256 * 1024;

pub(super) struct FileWriter {
    store: Filesystem,
    upload: UploadId,
    /// Taken while a blocking task has it; stays away after a failure, whose cause may have lost data.
    target: Option<Target>,
}

enum Target {
    /// Nothing is recorded of it. The first task that needs the file opens it: no thread is woken for that alone.
    New,
    Open(OpenFile),
}

struct OpenFile {
    file: File,
    offset: u64,
    /// Up to here the kernel was asked to write out.
    flushed: u64,
}

impl FileWriter {
    pub(super) fn begin(store: Filesystem, upload: UploadId) -> Self {
        Self {
            store,
            upload,
            target: Some(Target::New),
        }
    }

    pub(super) fn resume(store: Filesystem, upload: UploadId, offset: u64) -> Result<Self> {
        let open =
            OpenFile::open(&store.upload_path(upload), offset).map_err(failed(upload, "opening it"))?;
        Ok(Self {
            store,
            upload,
            target: Some(Target::Open(open)),
        })
    }

    fn take(&mut self) -> Result<Target> {
        let lost = || io::Error::other("an earlier write failed or was abandoned");
        self.target
            .take()
            .ok_or_else(lost)
            .map_err(failed(self.upload, "writing it"))
    }
}

impl Target {
    fn open(self, store: &Filesystem, upload: UploadId) -> Result<OpenFile> {
        match self {
            Self::Open(open) => Ok(open),
            Self::New => OpenFile::open(&store.upload_path(upload), 0).map_err(failed(upload, "opening it")),
        }
    }
}

#[async_trait]
impl UploadWriter for FileWriter {
    async fn append(&mut self, data: Vec<Bytes>) -> Result<()> {
        let target = self.take()?;
        let (upload, store) = (self.upload, self.store.clone());
        let open = blocking(move || {
            store.require_space_for(length_of(&data))?;
            let mut open = target.open(&store, upload)?;
            match open.append(&data) {
                Ok(()) => Ok(open),
                Err(source) => Err(failed(upload, "writing it")(source)),
            }
        })
        .await?;
        self.target = Some(Target::Open(open));
        Ok(())
    }

    /// The file is where the next request looks.
    async fn settle(&mut self, _: Settle) -> Result<Settled> {
        Ok(Settled::Done(None))
    }

    async fn finish(mut self: Box<Self>, key: &ObjectName) -> Result<ObjectName> {
        let target = self.take()?;
        let (from, to) = (self.store.upload_path(self.upload), self.store.object_path(key));
        let (upload, store) = (self.upload, self.store);
        blocking(move || {
            let open = target.open(&store, upload)?;
            make_object(&open.file, &from, &to).map_err(failed(upload, "making it durable"))
        })
        .await?;
        Ok(key.clone())
    }
}

impl OpenFile {
    fn open(path: &Path, offset: u64) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        let length = file.metadata()?.len();
        if length < offset {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("it has {length} bytes, {offset} are recorded"),
            ));
        }
        if length > offset {
            file.set_len(offset)?;
        }
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self {
            file,
            offset,
            flushed: offset,
        })
    }

    fn append(&mut self, data: &[Bytes]) -> io::Result<()> {
        write_all(&mut self.file, data)?;
        self.offset += length_of(data);
        let due = (self.flushed / WRITE_BEHIND_SHARE).clamp(WRITE_BEHIND_BYTES_MIN, WRITE_BEHIND_BYTES_MAX);
        if self.offset - self.flushed >= due {
            // DONTNEED starts writing out dirty pages and leaves them cached, as sync_file_range(WRITE) would (which
            // rustix lacks); only clean pages are dropped, and these are fresh. It is a hint: failing is harmless.
            let length = NonZeroU64::new(self.offset - self.flushed);
            let _ = rustix::fs::fadvise(&self.file, self.flushed, length, Advice::DontNeed);
            self.flushed = self.offset;
        }
        Ok(())
    }
}

/// Stores a small object in one go, by the same steps as a large one.
pub(super) fn put(upload: UploadId, from: &Path, to: &Path, data: &[Bytes]) -> Result<()> {
    let put = || -> io::Result<()> {
        let mut file = File::create(from)?;
        write_all(&mut file, data)?;
        make_object(&file, from, to)
    };
    put().map_err(failed(upload, "storing it"))
}

/// The order is the promise: bytes, then name, then directory. The caller's metadata commit comes last.
fn make_object(file: &File, from: &Path, to: &Path) -> io::Result<()> {
    file.sync_all()?;
    std::fs::rename(from, to)?;
    match to.parent() {
        Some(shard) => sync_directory(shard),
        None => Ok(()),
    }
}

pub(super) fn hash(path: &Path, length: u64, algorithm: Algorithm) -> io::Result<Hasher> {
    let mut file = File::open(path)?.take(length);
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; HASH_BUFFER_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 if file.limit() == 0 => return Ok(hasher),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

fn write_all(file: &mut File, data: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = data.iter().map(|piece| IoSlice::new(piece)).collect();
    let mut rest = slices.as_mut_slice();
    // Skips leading empty pieces.
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn failed(upload: UploadId, operation: &'static str) -> impl Fn(io::Error) -> StorageError {
    move |source| StorageError::Upload {
        upload,
        operation,
        source,
    }
}
