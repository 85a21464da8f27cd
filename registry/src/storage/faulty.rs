//! A store that fails as told, around one that doesn't: for tests.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use oci::{Algorithm, Digest, Hasher};
use parking_lot::Mutex;

use super::*;

/// `ENOSPC`
pub(crate) const DISK_FULL: i32 = 28;
/// `EIO`
pub(crate) const INPUT_OUTPUT: i32 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Put,
    Append,
    /// With its syncs.
    Finish,
    Read,
    Delete,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Nothing is done.
    Fails(i32),
    /// Half is done.
    Partly(i32),
    /// All is done, and reported as failed.
    Unsaid(i32),
    Late(Duration),
}

#[derive(Clone)]
pub(crate) struct Faulty {
    inner: Arc<dyn BlobStore>,
    faults: Arc<Mutex<HashMap<Step, Fault>>>,
}

impl Faulty {
    pub(crate) fn new(inner: Arc<dyn BlobStore>) -> Self {
        Self {
            inner,
            faults: Arc::default(),
        }
    }

    /// From now on, until it is told otherwise.
    pub(crate) fn set(&self, step: Step, fault: Option<Fault>) {
        let mut faults = self.faults.lock();
        match fault {
            Some(fault) => faults.insert(step, fault),
            None => faults.remove(&step),
        };
    }

    fn fault(&self, step: Step) -> Option<Fault> {
        self.faults.lock().get(&step).copied()
    }

    /// Runs `whole`, or as much of it as the fault lets.
    async fn under<T>(&self, step: Step, whole: impl Future<Output = Result<T>>) -> Result<T> {
        match self.fault(step) {
            None => whole.await,
            Some(Fault::Late(delay)) => {
                tokio::time::sleep(delay).await;
                whole.await
            }
            Some(Fault::Unsaid(errno)) => {
                whole.await?;
                Err(failure(errno))
            }
            Some(Fault::Fails(errno) | Fault::Partly(errno)) => Err(failure(errno)),
        }
    }
}

fn failure(errno: i32) -> StorageError {
    StorageError::Store {
        path: "faulty".to_owned(),
        operation: "failing as told",
        source: io::Error::from_raw_os_error(errno),
    }
}

#[async_trait]
impl BlobStore for Faulty {
    fn new_name(&self, digest: &Digest) -> ObjectName {
        self.inner.new_name(digest)
    }

    async fn put(&self, upload: UploadId, key: &ObjectName, data: Vec<Bytes>) -> Result<()> {
        self.under(Step::Put, self.inner.put(upload, key, data)).await
    }

    async fn open_upload(&self, upload: Upload, log: Box<dyn UploadLog>) -> Result<Box<dyn UploadWriter>> {
        Ok(Box::new(FaultyWriter {
            inner: self.inner.open_upload(upload, log).await?,
            store: self.clone(),
        }))
    }

    async fn hash_upload(&self, upload: &Upload, algorithm: Algorithm) -> Result<Option<Hasher>> {
        self.inner.hash_upload(upload, algorithm).await
    }

    async fn discard_upload(&self, upload: UploadId) -> Result<()> {
        self.inner.discard_upload(upload).await
    }

    async fn list_uploads(&self) -> Result<Vec<UploadId>> {
        self.inner.list_uploads().await
    }

    fn chunk_bytes_min(&self) -> Option<u64> {
        self.inner.chunk_bytes_min()
    }

    async fn read(&self, key: &ObjectName, range: Range<u64>) -> Result<ByteStream> {
        let Some(Fault::Partly(errno)) = self.fault(Step::Read) else {
            return self.under(Step::Read, self.inner.read(key, range)).await;
        };
        let half = self
            .inner
            .read(key, range.start..range.start + (range.end - range.start) / 2)
            .await?;
        Ok(Box::pin(half.chain(futures::stream::once(async move {
            Err(failure(errno))
        }))))
    }

    async fn size(&self, key: &ObjectName) -> Result<u64> {
        self.inner.size(key).await
    }

    async fn file(&self, _: &ObjectName) -> Result<Option<Arc<File>>> {
        Ok(None)
    }

    async fn free_bytes(&self) -> Result<Option<u64>> {
        self.inner.free_bytes().await
    }

    async fn require_space(&self) -> Result<()> {
        self.inner.require_space().await
    }

    async fn link(&self, key: &ObjectName) -> Result<Option<String>> {
        self.inner.link(key).await
    }

    async fn delete(&self, key: &ObjectName) -> Result<()> {
        self.under(Step::Delete, self.inner.delete(key)).await
    }

    async fn list(&self, after: Option<&ObjectName>) -> Result<Vec<ObjectName>> {
        self.inner.list(after).await
    }

    async fn identity(&self, uuid: &str) -> Result<String> {
        self.inner.identity(uuid).await
    }
}

#[async_trait]
impl Files for Faulty {
    async fn put_file(&self, name: &str, data: Bytes) -> Result<()> {
        self.under(Step::Put, self.inner.put_file(name, data)).await
    }

    async fn get_file(&self, name: &str) -> Result<Option<Bytes>> {
        self.under(Step::Read, self.inner.get_file(name)).await
    }

    async fn list_files(&self, prefix: &str) -> Result<Vec<String>> {
        self.inner.list_files(prefix).await
    }

    async fn delete_file(&self, name: &str) -> Result<()> {
        self.under(Step::Delete, self.inner.delete_file(name)).await
    }
}

struct FaultyWriter {
    inner: Box<dyn UploadWriter>,
    store: Faulty,
}

#[async_trait]
impl UploadWriter for FaultyWriter {
    async fn append(&mut self, mut data: Vec<Bytes>) -> Result<()> {
        if let Some(Fault::Partly(errno)) = self.store.fault(Step::Append) {
            data.truncate(data.len().div_ceil(2));
            if let Some(last) = data.last_mut() {
                last.truncate(last.len() / 2);
            }
            self.inner.append(data).await?;
            return Err(failure(errno));
        }
        self.store.under(Step::Append, self.inner.append(data)).await
    }

    async fn settle(&mut self, when: Settle) -> Result<Settled> {
        self.inner.settle(when).await
    }

    async fn finish(self: Box<Self>, key: &ObjectName) -> Result<ObjectName> {
        self.store.under(Step::Finish, self.inner.finish(key)).await
    }
}

#[tokio::test]
async fn without_faults_it_passes_the_contract_suite() {
    let directory = tempfile::tempdir().unwrap();
    let inner = filesystem::Filesystem::open(directory.path()).await.unwrap();
    suite::run(&Faulty::new(Arc::new(inner))).await;
}
