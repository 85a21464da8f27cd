//! What every blob store must do. Each back end runs it on an empty store and must be empty again afterwards.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use oci::{Algorithm, Digest};
use parking_lot::Mutex;

use super::*;

/// More than the largest part.
const LARGE_BYTES: usize = 40_000_000;

pub(crate) async fn run(store: &dyn BlobStore) {
    identity_is_kept(store).await;
    small_objects_are_stored_whole(store).await;
    uploads_continue_and_are_cut_to_their_offset(store).await;
    small_chunks_add_up(store).await;
    large_uploads_are_stored_whole(store).await;
    names_are_never_reused_and_listed_in_order(store).await;
    what_is_gone_can_be_deleted_again(store).await;
    files_are_replaced_whole(store).await;
    assert_eq!(store.list(None).await.unwrap(), [], "objects are left");
    assert_eq!(store.list_uploads().await.unwrap(), [], "uploads are left");
}

/// An upload's row in a database.
#[derive(Clone, Default)]
pub(crate) struct Row(Arc<Mutex<(Option<ObjectName>, Option<UploadNotes>)>>);

impl Row {
    pub(crate) fn upload(&self, id: UploadId, offset: u64) -> Upload {
        Upload {
            id,
            offset,
            notes: self.0.lock().1.clone(),
        }
    }

    pub(crate) fn log(&self) -> Box<dyn UploadLog> {
        Box::new(self.clone())
    }

    /// What a request does at its end.
    pub(crate) async fn settle(&self, writer: &mut dyn UploadWriter) {
        let settled = writer.settle(Settle::Now).await.unwrap();
        let Settled::Done(notes) = settled else {
            panic!("not settled")
        };
        if notes.is_some() {
            self.0.lock().1 = notes;
        }
    }

    /// Finishes; an object must have the name that was recorded before.
    pub(crate) async fn finish(&self, writer: Box<dyn UploadWriter>, key: &ObjectName) -> ObjectName {
        if self.0.lock().1.is_none() {
            self.0.lock().0 = Some(key.clone());
        }
        let stored = writer.finish(key).await.unwrap();
        assert_eq!(self.0.lock().0.as_ref(), Some(&stored), "an unrecorded name");
        stored
    }
}

#[async_trait]
impl UploadLog for Row {
    async fn record(&self, key: Option<&ObjectName>, notes: UploadNotes) -> Result<()> {
        let mut row = self.0.lock();
        if let Some(key) = key {
            row.0 = Some(key.clone());
        }
        row.1 = Some(notes);
        Ok(())
    }
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_le_bytes()
    };
    let mut noise: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(|_| next()).collect();
    noise.truncate(bytes);
    noise
}

async fn read(store: &dyn BlobStore, key: &ObjectName, range: Range<u64>) -> Vec<u8> {
    let pieces: Vec<Bytes> = store.read(key, range).await.unwrap().try_collect().await.unwrap();
    pieces.concat()
}

async fn identity_is_kept(store: &dyn BlobStore) {
    assert_eq!(store.identity("first").await.unwrap(), "first");
    assert_eq!(store.identity("second").await.unwrap(), "first");
}

async fn small_objects_are_stored_whole(store: &dyn BlobStore) {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let key = store.new_name(&Digest::of(algorithm, b"hello"));
        let data = vec![
            Bytes::from_static(b""),
            Bytes::from_static(b"hel"),
            Bytes::from_static(b"lo"),
        ];
        store.put(UploadId::random(), &key, data).await.unwrap();
        assert_eq!(read(store, &key, 0..5).await, b"hello");
        assert_eq!(read(store, &key, 1..3).await, b"el");
        assert_eq!(read(store, &key, 2..2).await, b"");
        let pieces: Result<Vec<Bytes>, _> = store.read(&key, 0..9).await.unwrap().try_collect().await;
        assert!(
            pieces.is_err(),
            "a truncated object is an error, not a short answer"
        );
        store.delete(&key).await.unwrap();
    }
}

async fn uploads_continue_and_are_cut_to_their_offset(store: &dyn BlobStore) {
    let (upload, row) = (UploadId::random(), Row::default());
    // More than a piece, less than two, so that reads come in parts.
    let body = noise(400_000);
    let mut writer = store.open_upload(row.upload(upload, 0), row.log()).await.unwrap();
    writer
        .append(vec![Bytes::copy_from_slice(&body[..1000])])
        .await
        .unwrap();
    row.settle(writer.as_mut()).await;
    let recorded = row.upload(upload, 1000);
    writer
        .append(vec![Bytes::from_static(b"never recorded")])
        .await
        .unwrap();
    writer.settle(Settle::Now).await.unwrap();
    drop(writer);
    assert_eq!(store.list_uploads().await.unwrap(), [upload]);
    let mut writer = store.open_upload(recorded, row.log()).await.unwrap();
    writer
        .append(vec![Bytes::copy_from_slice(&body[1000..])])
        .await
        .unwrap();
    row.settle(writer.as_mut()).await;
    drop(writer);
    let whole = row.upload(upload, body.len() as u64);
    let hasher = store
        .hash_upload(&whole, Algorithm::Sha512)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(hasher.finish(), Digest::of(Algorithm::Sha512, &body));
    let longer = row.upload(upload, body.len() as u64 + 1);
    assert!(store.hash_upload(&longer, Algorithm::Sha256).await.is_err());
    let writer = store.open_upload(whole, row.log()).await.unwrap();
    let key = store.new_name(&Digest::sha256(&body));
    let key = row.finish(writer, &key).await;
    assert_eq!(store.list_uploads().await.unwrap(), []);
    assert!(read(store, &key, 0..body.len() as u64).await == body);
    assert!(read(store, &key, 70_000..300_000).await == body[70_000..300_000]);
    store.delete(&key).await.unwrap();
    let unknown = Row::default().upload(UploadId::random(), 5);
    assert!(
        store.open_upload(unknown, row.log()).await.is_err(),
        "recorded bytes are not there"
    );
    for left in store.list_uploads().await.unwrap() {
        store.discard_upload(left).await.unwrap();
    }
}

/// Many requests, each of another writer, as from several replicas.
async fn small_chunks_add_up(store: &dyn BlobStore) {
    let (upload, row) = (UploadId::random(), Row::default());
    let mut sizes = vec![3_000; 40];
    // Enough for a part, and again something small behind it.
    sizes.extend([5_500_000, 1, 70_000, 6_000_000, 10]);
    let body = noise(sizes.iter().sum());
    let mut offset = 0;
    for size in sizes {
        let mut writer = store
            .open_upload(row.upload(upload, offset as u64), row.log())
            .await
            .unwrap();
        let data = Bytes::copy_from_slice(&body[offset..offset + size]);
        writer.append(vec![data]).await.unwrap();
        row.settle(writer.as_mut()).await;
        offset += size;
    }
    let writer = store
        .open_upload(row.upload(upload, offset as u64), row.log())
        .await
        .unwrap();
    let key = store.new_name(&Digest::sha256(&body));
    let key = row.finish(writer, &key).await;
    assert!(read(store, &key, 0..body.len() as u64).await == body);
    assert_eq!(store.list_uploads().await.unwrap(), []);
    store.delete(&key).await.unwrap();

    // Dropped in the middle.
    let (upload, row) = (UploadId::random(), Row::default());
    let mut writer = store.open_upload(row.upload(upload, 0), row.log()).await.unwrap();
    writer.append(vec![Bytes::from(noise(5_300_000))]).await.unwrap();
    row.settle(writer.as_mut()).await;
    writer.append(vec![Bytes::from_static(b"more")]).await.unwrap();
    row.settle(writer.as_mut()).await;
    assert_eq!(store.list_uploads().await.unwrap(), [upload]);
    store.discard_upload(upload).await.unwrap();
    assert_eq!(store.list_uploads().await.unwrap(), []);
}

async fn large_uploads_are_stored_whole(store: &dyn BlobStore) {
    let (upload, row) = (UploadId::random(), Row::default());
    let body = Bytes::from(noise(LARGE_BYTES));
    let mut writer = store.open_upload(row.upload(upload, 0), row.log()).await.unwrap();
    for start in (0..body.len()).step_by(300_000) {
        let piece = body.slice(start..body.len().min(start + 300_000));
        writer.append(vec![piece]).await.unwrap();
    }
    let key = store.new_name(&Digest::sha256(&body));
    let key = row.finish(writer, &key).await;
    assert!(read(store, &key, 0..body.len() as u64).await == body);
    let across = 16_700_000..16_900_000;
    assert!(read(store, &key, across.start as u64..across.end as u64).await == body[across]);
    assert_eq!(store.list(None).await.unwrap(), std::slice::from_ref(&key));
    assert_eq!(store.list(Some(&key)).await.unwrap(), []);
    store.delete(&key).await.unwrap();
    assert!(store.read(&key, 0..1).await.is_err());
}

async fn files_are_replaced_whole(store: &dyn BlobStore) {
    let put = async |name: &str, data: &'static str| store.put_file(name, data.into()).await.unwrap();
    assert_eq!(store.get_file("meta/j/1").await.unwrap(), None);
    put("meta/j/2", "two").await;
    put("meta/j/1", "one").await;
    put("meta/s", "snapshot").await;
    put("meta/j/1", "one again").await;
    assert_eq!(store.get_file("meta/j/1").await.unwrap().unwrap(), "one again");
    assert_eq!(
        store.list_files("meta/j/").await.unwrap(),
        ["meta/j/1", "meta/j/2"]
    );
    assert_eq!(store.list(None).await.unwrap(), [], "a file is no object");
    for name in store.list_files("meta/").await.unwrap() {
        store.delete_file(&name).await.unwrap();
    }
    store.delete_file("meta/s").await.unwrap();
    assert_eq!(store.list_files("meta/").await.unwrap(), [""; 0]);
}

async fn names_are_never_reused_and_listed_in_order(store: &dyn BlobStore) {
    let mut keys = Vec::new();
    for index in 0..6_u8 {
        // Twice the same digest: the names differ.
        let key = store.new_name(&Digest::sha256(&[index / 2]));
        store
            .put(UploadId::random(), &key, vec![Bytes::copy_from_slice(&[index])])
            .await
            .unwrap();
        keys.push(key);
    }
    keys.sort();
    let mut listed: Vec<ObjectName> = Vec::new();
    loop {
        let page = store.list(listed.last()).await.unwrap();
        if page.is_empty() {
            break;
        }
        listed.extend(page);
    }
    assert_eq!(listed, keys);
    for key in &keys {
        store.delete(key).await.unwrap();
    }
}

async fn what_is_gone_can_be_deleted_again(store: &dyn BlobStore) {
    let key = store.new_name(&Digest::sha256(b"gone"));
    store.delete(&key).await.unwrap();
    assert!(store.read(&key, 0..1).await.is_err());
    store.discard_upload(UploadId::random()).await.unwrap();
}
