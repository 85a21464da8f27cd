//! The builder's doors, kept in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use builder::event::{Event, EventSink};
use builder::services::{
    BlobUpload, CacheKey, CacheStore, ContextSource, ImageSink, ImageSource, ResolvedImage, ServiceError,
    StepRecord,
};
use bytes::Bytes;
use oci::media_type::OCI_MANIFEST;
use oci::{Descriptor, Digest, Manifest, Platform, RepoName, Tag};
use tokio::io::AsyncRead;

/// A registry, a cache and an event log. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// By repository: only what was pushed or mounted there.
    blobs: Mutex<BTreeMap<(String, Digest), Bytes>>,
    manifests: Mutex<BTreeMap<Digest, Bytes>>,
    tags: Mutex<BTreeMap<String, Digest>>,
    records: Mutex<BTreeMap<CacheKey, StepRecord>>,
    memos: Mutex<BTreeMap<String, String>>,
    events: Mutex<Vec<Event>>,
    opened: AtomicUsize,
}

pub(crate) const REPOSITORY: &str = "team/app";

impl Memory {
    /// Stores an image under `name`; other builds reach it as `FROM name`.
    pub(crate) fn add_image(&self, name: &str, config: &serde_json::Value, layer: Vec<u8>) {
        let diff_id = Digest::sha256(&layer);
        let mut config = config.clone();
        config["rootfs"] = serde_json::json!({"type": "layers", "diff_ids": [diff_id.to_string()]});
        let config = serde_json::to_vec(&config).unwrap();
        let descriptor = |media_type: &str, data: &[u8]| {
            Descriptor::new(media_type, Digest::sha256(data), data.len() as u64)
        };
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(oci::media_type::OCI_CONFIG, &config),
            "layers": [descriptor(oci::media_type::OCI_LAYER_TAR, &layer)],
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        for blob in [config, layer] {
            self.0
                .blobs
                .lock()
                .unwrap()
                .insert((name.to_owned(), Digest::sha256(&blob)), blob.into());
        }
        let digest = Digest::sha256(&manifest);
        self.0.manifests.lock().unwrap().insert(digest, manifest.into());
        self.0.tags.lock().unwrap().insert(name.to_owned(), digest);
    }

    /// An image of another's layers and more, uncompressed ones.
    pub(crate) fn add_layers(&self, name: &str, base: &str, layers: &[Vec<u8>]) {
        let manifest = self.0.manifests.lock().unwrap()[&self.tags()[base]].clone();
        let mut manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let parsed = Manifest::parse(Some(OCI_MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
        let mut blobs = self.0.blobs.lock().unwrap();
        let config = blobs[&(base.to_owned(), parsed.config().unwrap().digest)].clone();
        let mut config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        for layer in parsed.layers() {
            let data = blobs[&(base.to_owned(), layer.digest)].clone();
            blobs.insert((name.to_owned(), layer.digest), data);
        }
        for layer in layers {
            let digest = Digest::sha256(layer);
            let descriptor = Descriptor::new(oci::media_type::OCI_LAYER_TAR, digest, layer.len() as u64);
            manifest["layers"]
                .as_array_mut()
                .unwrap()
                .push(serde_json::to_value(descriptor).unwrap());
            config["rootfs"]["diff_ids"]
                .as_array_mut()
                .unwrap()
                .push(digest.to_string().into());
            blobs.insert((name.to_owned(), digest), layer.clone().into());
        }
        let config = serde_json::to_vec(&config).unwrap();
        let digest = Digest::sha256(&config);
        let descriptor = Descriptor::new(oci::media_type::OCI_CONFIG, digest, config.len() as u64);
        manifest["config"] = serde_json::to_value(descriptor).unwrap();
        blobs.insert((name.to_owned(), digest), config.into());
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let digest = Digest::sha256(&manifest);
        self.0.manifests.lock().unwrap().insert(digest, manifest.into());
        self.0.tags.lock().unwrap().insert(name.to_owned(), digest);
    }

    pub(crate) fn tags(&self) -> BTreeMap<String, Digest> {
        self.0.tags.lock().unwrap().clone()
    }

    pub(crate) fn manifest_count(&self) -> usize {
        self.0.manifests.lock().unwrap().len()
    }

    /// A built image's configuration, and its layers as uncompressed archives.
    pub(crate) fn image(&self, digest: &Digest) -> (serde_json::Value, Vec<Vec<u8>>) {
        let manifest = self.0.manifests.lock().unwrap()[digest].clone();
        let manifest = Manifest::parse(Some(OCI_MANIFEST), manifest.to_vec()).unwrap();
        let blob = |digest: &Digest| self.0.blobs.lock().unwrap()[&(REPOSITORY.to_owned(), *digest)].clone();
        let config = serde_json::from_slice(&blob(&manifest.config().unwrap().digest)).unwrap();
        let layers = manifest.layers().iter().map(|layer| {
            let data = blob(&layer.digest);
            if !data.starts_with(&[0x1f, 0x8b]) {
                return data.to_vec();
            }
            let mut plain = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&data[..]), &mut plain)
                .unwrap();
            plain
        });
        (config, layers.collect())
    }

    pub(crate) fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.events.lock().unwrap())
    }

    pub(crate) fn records(&self) -> BTreeMap<CacheKey, StepRecord> {
        self.0.records.lock().unwrap().clone()
    }

    /// How many layers were read since the start.
    pub(crate) fn opened(&self) -> usize {
        self.0.opened.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl ImageSource for Memory {
    async fn resolve(&self, reference: &str, _: &Platform) -> Result<ResolvedImage, ServiceError> {
        let digest = self.0.tags.lock().unwrap().get(reference).copied();
        let digest = digest.ok_or_else(|| ServiceError::new(format!("there is no image {reference}")))?;
        let manifest = self.0.manifests.lock().unwrap()[&digest].clone();
        let parsed = Manifest::parse(Some(OCI_MANIFEST), manifest.to_vec()).unwrap();
        let repository = reference.split(':').next().unwrap().to_owned();
        let key = (repository.clone(), parsed.config().unwrap().digest);
        Ok(ResolvedImage {
            repository: repository.parse().unwrap(),
            digest,
            manifest,
            media_type: OCI_MANIFEST.to_owned(),
            config: self.0.blobs.lock().unwrap()[&key].clone(),
        })
    }

    async fn open(
        &self,
        repository: &RepoName,
        layer: &Descriptor,
        offset: u64,
    ) -> Result<Pin<Box<dyn AsyncRead + Send>>, ServiceError> {
        self.0.opened.fetch_add(1, Ordering::Relaxed);
        let data = self
            .0
            .blobs
            .lock()
            .unwrap()
            .get(&(repository.to_string(), layer.digest))
            .cloned();
        let data =
            data.ok_or_else(|| ServiceError::new(format!("{repository} has no blob {}", layer.digest)))?;
        Ok(Box::pin(std::io::Cursor::new(data.slice(offset as usize..))))
    }
}

#[async_trait]
impl ImageSink for Memory {
    async fn has_blob(&self, digest: &Digest) -> Result<bool, ServiceError> {
        Ok(self
            .0
            .blobs
            .lock()
            .unwrap()
            .contains_key(&(REPOSITORY.to_owned(), *digest)))
    }

    async fn mount(&self, from: &RepoName, digest: &Digest) -> Result<bool, ServiceError> {
        let mut blobs = self.0.blobs.lock().unwrap();
        let Some(data) = blobs.get(&(from.to_string(), *digest)).cloned() else {
            return Ok(false);
        };
        blobs.insert((REPOSITORY.to_owned(), *digest), data);
        Ok(true)
    }

    async fn put_blob(&self, digest: &Digest, data: Bytes) -> Result<(), ServiceError> {
        assert_eq!(*digest, Digest::sha256(&data));
        self.0
            .blobs
            .lock()
            .unwrap()
            .insert((REPOSITORY.to_owned(), *digest), data);
        Ok(())
    }

    async fn start_upload(&self) -> Result<Box<dyn BlobUpload>, ServiceError> {
        Ok(Box::new(Upload {
            memory: self.clone(),
            data: Vec::new(),
        }))
    }

    async fn put_manifest(&self, _: &str, manifest: Bytes) -> Result<Digest, ServiceError> {
        let parsed =
            Manifest::parse(Some(OCI_MANIFEST), manifest.to_vec()).map_err(ServiceError::from_error)?;
        for blob in parsed.blobs() {
            let key = (REPOSITORY.to_owned(), blob.digest);
            let size = self
                .0
                .blobs
                .lock()
                .unwrap()
                .get(&key)
                .map(|data| data.len() as u64);
            assert_eq!(size, Some(blob.size), "{} is in the repository", blob.digest);
        }
        let digest = Digest::sha256(&manifest);
        self.0.manifests.lock().unwrap().insert(digest, manifest);
        Ok(digest)
    }

    async fn tag(
        &self,
        repository: &RepoName,
        tag: &Tag,
        _: &str,
        manifest: Bytes,
    ) -> Result<(), ServiceError> {
        self.0
            .tags
            .lock()
            .unwrap()
            .insert(format!("{repository}:{tag}"), Digest::sha256(&manifest));
        Ok(())
    }
}

struct Upload {
    memory: Memory,
    data: Vec<u8>,
}

#[async_trait]
impl BlobUpload for Upload {
    async fn write(&mut self, data: Bytes) -> Result<(), ServiceError> {
        self.data.extend_from_slice(&data);
        Ok(())
    }

    async fn finish(self: Box<Self>, digest: &Digest) -> Result<(), ServiceError> {
        self.memory.put_blob(digest, self.data.into()).await
    }
}

#[async_trait]
impl CacheStore for Memory {
    async fn get(&self, keys: &[CacheKey]) -> Result<BTreeMap<CacheKey, StepRecord>, ServiceError> {
        let wanted: BTreeSet<&CacheKey> = keys.iter().collect();
        let records = self.0.records.lock().unwrap();
        Ok(records
            .iter()
            .filter(|(key, _)| wanted.contains(key))
            .map(|(k, r)| (k.clone(), r.clone()))
            .collect())
    }

    async fn put(&self, key: &CacheKey, record: &StepRecord) -> Result<(), ServiceError> {
        let blob = (REPOSITORY.to_owned(), record.layer.digest);
        assert!(
            self.0.blobs.lock().unwrap().contains_key(&blob),
            "a record's layer is durable first"
        );
        self.0.records.lock().unwrap().insert(key.clone(), record.clone());
        Ok(())
    }

    async fn memo_get(&self, keys: &[String]) -> Result<BTreeMap<String, String>, ServiceError> {
        let memos = self.0.memos.lock().unwrap();
        Ok(keys
            .iter()
            .filter_map(|key| Some((key.clone(), memos.get(key)?.clone())))
            .collect())
    }

    async fn memo_put(&self, key: &str, value: &str) -> Result<(), ServiceError> {
        self.0
            .memos
            .lock()
            .unwrap()
            .insert(key.to_owned(), value.to_owned());
        Ok(())
    }
}

impl EventSink for Memory {
    fn emit(&self, event: Event) {
        self.0.events.lock().unwrap().push(event);
    }
}

/// A context that is a directory of the test.
pub(crate) struct Directory(pub(crate) PathBuf);

#[async_trait]
impl ContextSource for Directory {
    async fn root(&self) -> Result<&Path, ServiceError> {
        Ok(&self.0)
    }
}
