//! What every blob store must do. Each back end runs it on an empty store and must be empty again afterwards.

use bytes::Bytes;
use futures::TryStreamExt;
use oci::{Algorithm, Digest};

use super::{BlobStore, ObjectName, UploadId};

pub(crate) async fn run(store: &dyn BlobStore) {
    identity_is_kept(store).await;
    small_objects_are_stored_whole(store).await;
    uploads_continue_and_are_cut_to_their_offset(store).await;
    names_are_never_reused_and_listed_in_order(store).await;
    what_is_gone_can_be_deleted_again(store).await;
}

async fn read(store: &dyn BlobStore, key: &ObjectName, range: std::ops::Range<u64>) -> Vec<u8> {
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
    let upload = UploadId::random();
    // More than a piece, less than two, so that reads come in parts.
    let body: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut writer = store.open_upload(upload, 0).await.unwrap();
    writer
        .append(vec![Bytes::copy_from_slice(&body[..1000])])
        .await
        .unwrap();
    writer
        .append(vec![Bytes::from_static(b"never recorded")])
        .await
        .unwrap();
    drop(writer);
    assert_eq!(store.list_uploads().await.unwrap(), [upload]);
    let mut writer = store.open_upload(upload, 1000).await.unwrap();
    writer
        .append(vec![Bytes::copy_from_slice(&body[1000..])])
        .await
        .unwrap();
    let hasher = store
        .hash_upload(upload, body.len() as u64, Algorithm::Sha256)
        .await
        .unwrap();
    let digest = hasher.finish();
    assert_eq!(digest, Digest::sha256(&body));
    assert!(
        store
            .hash_upload(upload, body.len() as u64 + 1, Algorithm::Sha256)
            .await
            .is_err()
    );
    let key = store.new_name(&digest);
    writer.finish(&key).await.unwrap();
    assert_eq!(store.list_uploads().await.unwrap(), []);
    assert_eq!(read(store, &key, 0..body.len() as u64).await, body);
    assert_eq!(read(store, &key, 70_000..300_000).await, &body[70_000..300_000]);
    store.delete(&key).await.unwrap();
    assert!(
        store.open_upload(UploadId::random(), 5).await.is_err(),
        "recorded bytes are not there"
    );
    for left in store.list_uploads().await.unwrap() {
        store.discard_upload(left).await.unwrap();
    }
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
