//! A store whose calls are timed, counted where they fail, and shown in traces: around any other.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use oci::{Algorithm, Digest, Hasher};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

use super::*;
use crate::traces::{self, Traced as _};

pub(crate) struct Observed {
    inner: Arc<dyn BlobStore>,
    system: &'static str,
    metrics: StoreMetrics,
    meters: Arc<Meters>,
}

/// What one kind of call is measured by, looked up once.
struct Meter {
    system: &'static str,
    operation: &'static str,
    seconds: Histogram,
    failures: Counter,
}

struct Meters {
    put: Meter,
    open_upload: Meter,
    append: Meter,
    settle: Meter,
    finish: Meter,
    hash_upload: Meter,
    discard_upload: Meter,
    read: Meter,
    size: Meter,
    delete: Meter,
    list: Meter,
    put_file: Meter,
    get_file: Meter,
    list_files: Meter,
    delete_file: Meter,
}

impl Observed {
    /// `system`: what kind of store `inner` is.
    pub(crate) fn new(inner: Arc<dyn BlobStore>, system: &'static str, metrics: &StoreMetrics) -> Self {
        let meter = |operation| Meter {
            system,
            operation,
            seconds: metrics.seconds(system, operation),
            failures: metrics.failures(system, operation),
        };
        let meters = Meters {
            put: meter("put"),
            open_upload: meter("open_upload"),
            append: meter("append"),
            settle: meter("settle"),
            finish: meter("finish"),
            hash_upload: meter("hash_upload"),
            discard_upload: meter("discard_upload"),
            read: meter("read"),
            size: meter("size"),
            delete: meter("delete"),
            list: meter("list"),
            put_file: meter("put_file"),
            get_file: meter("get_file"),
            list_files: meter("list_files"),
            delete_file: meter("delete_file"),
        };
        Self {
            inner,
            system,
            metrics: metrics.clone(),
            meters: Arc::new(meters),
        }
    }
}

impl Meter {
    async fn measure<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let begun = Instant::now();
        let outcome = call.within(traces::store(self.system, self.operation)).await;
        self.seconds.observe(begun.elapsed().as_secs_f64());
        // What isn't there is an answer.
        if outcome.as_ref().is_err_and(|error| !error.is_missing()) {
            self.failures.inc();
        }
        outcome
    }
}

#[async_trait]
impl BlobStore for Observed {
    fn new_name(&self, digest: &Digest) -> ObjectName {
        self.inner.new_name(digest)
    }

    async fn put(&self, upload: UploadId, key: &ObjectName, data: Vec<Bytes>) -> Result<()> {
        self.meters.put.measure(self.inner.put(upload, key, data)).await
    }

    async fn open_upload(&self, upload: Upload, log: Box<dyn UploadLog>) -> Result<Box<dyn UploadWriter>> {
        let opening = self.inner.open_upload(upload, log);
        Ok(Box::new(ObservedWriter {
            inner: self.meters.open_upload.measure(opening).await?,
            meters: Arc::clone(&self.meters),
        }))
    }

    async fn hash_upload(&self, upload: &Upload, algorithm: Algorithm) -> Result<Option<Hasher>> {
        let hashing = self.inner.hash_upload(upload, algorithm);
        self.meters.hash_upload.measure(hashing).await
    }

    async fn discard_upload(&self, upload: UploadId) -> Result<()> {
        let discarding = self.inner.discard_upload(upload);
        self.meters.discard_upload.measure(discarding).await
    }

    async fn list_uploads(&self) -> Result<Vec<UploadId>> {
        self.meters.list.measure(self.inner.list_uploads()).await
    }

    fn chunk_bytes_min(&self) -> Option<u64> {
        self.inner.chunk_bytes_min()
    }

    /// Until the first byte may be sent; the rest goes at the client's pace.
    async fn read(&self, key: &ObjectName, range: Range<u64>) -> Result<ByteStream> {
        self.meters.read.measure(self.inner.read(key, range)).await
    }

    async fn size(&self, key: &ObjectName) -> Result<u64> {
        self.meters.size.measure(self.inner.size(key)).await
    }

    /// Reading, as far as a store of files has to do with it. One without says so at once.
    async fn file(&self, key: &ObjectName) -> Result<Option<Arc<File>>> {
        let begun = Instant::now();
        let opening = self.inner.file(key);
        let opened = opening.within(traces::store(self.system, "open")).await;
        if !matches!(opened, Ok(None)) {
            self.meters.read.seconds.observe(begun.elapsed().as_secs_f64());
        }
        opened
    }

    async fn free_bytes(&self) -> Result<Option<u64>> {
        let free = self.inner.free_bytes().await?;
        if let Some(bytes) = free {
            self.metrics.set_free(self.system, bytes);
        }
        Ok(free)
    }

    async fn require_space(&self) -> Result<()> {
        self.inner.require_space().await
    }

    async fn link(&self, key: &ObjectName) -> Result<Option<String>> {
        self.inner.link(key).await
    }

    async fn delete(&self, key: &ObjectName) -> Result<()> {
        self.meters.delete.measure(self.inner.delete(key)).await
    }

    async fn list(&self, after: Option<&ObjectName>) -> Result<Vec<ObjectName>> {
        self.meters.list.measure(self.inner.list(after)).await
    }

    async fn identity(&self, uuid: &str) -> Result<String> {
        self.inner.identity(uuid).await
    }
}

#[async_trait]
impl Files for Observed {
    async fn put_file(&self, name: &str, data: Bytes) -> Result<()> {
        self.meters
            .put_file
            .measure(self.inner.put_file(name, data))
            .await
    }

    async fn get_file(&self, name: &str) -> Result<Option<Bytes>> {
        self.meters.get_file.measure(self.inner.get_file(name)).await
    }

    async fn list_files(&self, prefix: &str) -> Result<Vec<String>> {
        let listing = self.inner.list_files(prefix);
        self.meters.list_files.measure(listing).await
    }

    async fn delete_file(&self, name: &str) -> Result<()> {
        self.meters
            .delete_file
            .measure(self.inner.delete_file(name))
            .await
    }
}

struct ObservedWriter {
    inner: Box<dyn UploadWriter>,
    meters: Arc<Meters>,
}

#[async_trait]
impl UploadWriter for ObservedWriter {
    async fn append(&mut self, data: Vec<Bytes>) -> Result<()> {
        self.meters.append.measure(self.inner.append(data)).await
    }

    async fn settle(&mut self, when: Settle) -> Result<Settled> {
        self.meters.settle.measure(self.inner.settle(when)).await
    }

    async fn finish(self: Box<Self>, key: &ObjectName) -> Result<ObjectName> {
        self.meters.finish.measure(self.inner.finish(key)).await
    }
}

#[tokio::test]
async fn it_passes_the_contract_suite_and_counts_every_call() {
    let directory = tempfile::tempdir().unwrap();
    let inner = filesystem::Filesystem::open(directory.path()).await.unwrap();
    let metrics = StoreMetrics::default();
    let store = Observed::new(Arc::new(inner), "filesystem", &metrics);
    suite::run(&store).await;
    let mut registry = prometheus_client::registry::Registry::default();
    metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for operation in ["put", "append", "finish", "read", "delete", "list", "put_file"] {
        let none = format!("store_seconds_count{{store=\"filesystem\",operation=\"{operation}\"}} 0\n");
        let any = none.trim_end_matches("0\n");
        assert!(text.contains(any) && !text.contains(&none), "{operation}: {text}");
    }
}
