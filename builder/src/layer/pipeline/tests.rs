use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use oci::{RepoName, Tag};

use super::*;
use crate::services::{BlobUpload, ServiceError};

/// Takes one blob, slowly, or refuses it half-way.
#[derive(Default)]
struct Sink {
    blob: Arc<Mutex<Vec<u8>>>,
    finished: Arc<Mutex<Option<Digest>>>,
    refuse_after: Option<usize>,
}

struct Upload {
    sink: Sink,
}

#[async_trait]
impl BlobUpload for Upload {
    async fn write(&mut self, data: Bytes) -> Result<(), ServiceError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut blob = self.sink.blob.lock().unwrap();
        blob.extend_from_slice(&data);
        match self.sink.refuse_after {
            Some(limit) if blob.len() > limit => Err(ServiceError::new("the disk is full")),
            _ => Ok(()),
        }
    }

    async fn finish(self: Box<Self>, digest: &Digest) -> Result<(), ServiceError> {
        *self.sink.finished.lock().unwrap() = Some(*digest);
        Ok(())
    }
}

#[async_trait]
impl ImageSink for Sink {
    async fn has_blob(&self, _: &Digest) -> Result<bool, ServiceError> {
        Ok(false)
    }

    async fn mount(&self, _: &RepoName, _: &Digest) -> Result<bool, ServiceError> {
        Ok(false)
    }

    async fn put_blob(&self, _: &Digest, _: Bytes) -> Result<(), ServiceError> {
        Ok(())
    }

    async fn start_upload(&self) -> Result<Box<dyn BlobUpload>, ServiceError> {
        let sink = Self {
            blob: Arc::clone(&self.blob),
            finished: Arc::clone(&self.finished),
            refuse_after: self.refuse_after,
        };
        Ok(Box::new(Upload { sink }))
    }

    async fn put_manifest(&self, _: &str, manifest: Bytes) -> Result<Digest, ServiceError> {
        Ok(Digest::sha256(&manifest))
    }

    async fn tag(&self, _: &RepoName, _: &Tag, _: &str, _: Bytes) -> Result<(), ServiceError> {
        Ok(())
    }
}

/// Ten and a half chunks that compress differently fast.
fn content() -> Vec<u8> {
    let mut data = Vec::new();
    for chunk in 0..21u32 {
        let seed = blake3::hash(&chunk.to_le_bytes());
        let mut noise = vec![0; MEMBER_BYTES / 2];
        if chunk % 3 == 0 {
            blake3::Hasher::new_keyed(seed.as_bytes())
                .finalize_xof()
                .fill(&mut noise);
        }
        data.extend(noise);
    }
    data
}

async fn layer_of(sink: &Sink, threads: usize) -> Result<Layer, LayerError> {
    let compressors = Arc::new(Compressors::start(threads).unwrap());
    let produce = |writer: &mut ChunkWriter| {
        for piece in content().chunks(77_777) {
            writer.write_all(piece).map_err(|_| LayerError::Abandoned)?;
        }
        Ok(())
    };
    upload(sink, &compressors, produce).await.map(|(layer, ())| layer)
}

#[tokio::test]
async fn the_bytes_do_not_depend_on_the_number_of_threads() {
    let mut layers = Vec::new();
    for threads in [1, 2, 5] {
        let sink = Sink::default();
        let layer = layer_of(&sink, threads).await.unwrap();
        let blob = sink.blob.lock().unwrap().clone();
        assert_eq!(layer.descriptor.digest, Digest::sha256(&blob));
        assert_eq!(layer.descriptor.size, blob.len() as u64);
        assert_eq!(*sink.finished.lock().unwrap(), Some(layer.descriptor.digest));
        let mut plain = Vec::new();
        io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&blob[..]), &mut plain).unwrap();
        assert!(plain == content());
        assert_eq!(layer.diff_id, Digest::sha256(&plain));
        layers.push(layer);
    }
    assert!(layers.windows(2).all(|pair| pair[0] == pair[1]));
}

#[tokio::test]
async fn a_refused_upload_ends_every_thread_and_finishes_nothing() {
    let sink = Sink {
        refuse_after: Some(1 << 20),
        ..Sink::default()
    };
    let error = tokio::time::timeout(Duration::from_secs(30), layer_of(&sink, 2))
        .await
        .unwrap()
        .unwrap_err();
    assert!(matches!(error, LayerError::Upload { .. }), "{error}");
    assert_eq!(*sink.finished.lock().unwrap(), None);
}

#[tokio::test]
async fn a_producer_that_fails_is_the_error() {
    let sink = Sink::default();
    let compressors = Arc::new(Compressors::start(2).unwrap());
    let produce = |writer: &mut ChunkWriter| {
        writer
            .write_all(&[0; 3 << 20])
            .map_err(|_| LayerError::Abandoned)?;
        Err::<(), _>(LayerError::Changed { path: "file".into() })
    };
    let error = upload(&sink, &compressors, produce).await.unwrap_err();
    assert!(matches!(error, LayerError::Changed { .. }), "{error}");
    assert_eq!(*sink.finished.lock().unwrap(), None);
}
