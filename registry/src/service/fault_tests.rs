//! The service over a store that fails: what was acknowledged is there, what failed is gone, and the rest goes on.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use oci::{Algorithm, Digest, RepoName};

use super::{BodyStream, Chunk, Registry, RegistryError, Result, Session};
use crate::config::Limits;
use crate::metadata::sqlite::Sqlite;
use crate::storage::faulty::{DISK_FULL, Fault, Faulty, INPUT_OUTPUT, Step};
use crate::storage::filesystem::Filesystem;
use crate::storage::{BlobStore, ObjectName};

/// Goes to the store in one piece …
const SMALL_BYTES: usize = 1_000;
/// … and as a stream.
const LARGE_BYTES: usize = 700_000;

async fn registry(directory: &Path) -> (Arc<Registry>, Faulty) {
    let limits = Limits {
        delete_delay: Duration::ZERO,
        ..Limits::default()
    };
    let metadata = Sqlite::open(&directory.join("registry.db"), &limits)
        .await
        .unwrap();
    let store = Faulty::new(Arc::new(Filesystem::open(directory).await.unwrap()));
    let registry = Registry::new(Arc::new(metadata), Arc::new(store.clone()), limits, false);
    (Arc::new(registry), store)
}

fn name() -> RepoName {
    "app".parse().unwrap()
}

fn body(bytes: &[u8]) -> BodyStream {
    let pieces: Vec<_> = bytes
        .chunks(50_000)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    Box::pin(futures::stream::iter(pieces))
}

async fn push(registry: &Arc<Registry>, bytes: &[u8]) -> Result<()> {
    registry
        .push_blob(
            &name(),
            "tester",
            Digest::sha256(bytes),
            Chunk::default(),
            body(bytes),
        )
        .await
}

async fn content(registry: &Registry, bytes: &[u8]) -> Result<Vec<u8>> {
    let blob = registry.blob(&name(), &Digest::sha256(bytes)).await?;
    let open = registry.open_blob(&blob, 0..blob.size).await?;
    let pieces: Vec<Bytes> = open.bytes.try_collect().await?;
    Ok(pieces.concat())
}

/// How many objects are there when the clean-up has done what it can.
async fn objects(registry: &Registry, store: &Faulty) -> usize {
    while registry.clean_some().await.unwrap() {}
    assert_eq!(
        store.list_uploads().await.unwrap(),
        [],
        "an upload's bytes are left"
    );
    all(store).await.len()
}

/// The names of all objects; a page has those of one shard.
async fn all(store: &Faulty) -> Vec<ObjectName> {
    let mut names: Vec<ObjectName> = Vec::new();
    loop {
        let page = store.list(names.last()).await.unwrap();
        if page.is_empty() {
            return names;
        }
        names.extend(page);
    }
}

#[tokio::test]
async fn a_full_disk_refuses_uploads_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let (registry, store) = registry(directory.path()).await;
    let kept = vec![1; LARGE_BYTES];
    push(&registry, &kept).await.unwrap();
    for step in [Step::Put, Step::Append, Step::Finish] {
        store.set(step, Some(Fault::Fails(DISK_FULL)));
    }
    for bytes in [vec![2; SMALL_BYTES], vec![2; LARGE_BYTES]] {
        let error = push(&registry, &bytes).await.unwrap_err();
        assert!(
            matches!(&error, RegistryError::Storage(storage) if storage.is_full()),
            "{error}"
        );
        assert!(matches!(
            content(&registry, &bytes).await,
            Err(RegistryError::BlobUnknown { .. })
        ));
    }
    // Reading, linking what is there, deleting and cleaning go on.
    assert!(content(&registry, &kept).await.unwrap() == kept);
    push(&registry, &kept[..]).await.unwrap_err();
    assert_eq!(objects(&registry, &store).await, 1);
    registry
        .delete_blob(&name(), &Digest::sha256(&kept))
        .await
        .unwrap();
    assert!(content(&registry, &kept).await.is_err());

    for step in [Step::Put, Step::Append, Step::Finish] {
        store.set(step, None);
    }
    push(&registry, &[2; LARGE_BYTES]).await.unwrap();
}

#[tokio::test]
async fn what_could_not_be_synced_is_never_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let (registry, store) = registry(directory.path()).await;
    for fault in [Fault::Fails(INPUT_OUTPUT), Fault::Unsaid(INPUT_OUTPUT)] {
        store.set(Step::Put, Some(fault));
        store.set(Step::Finish, Some(fault));
        for bytes in [vec![3; SMALL_BYTES], vec![3; LARGE_BYTES]] {
            assert!(matches!(
                push(&registry, &bytes).await,
                Err(RegistryError::Storage(_))
            ));
            assert!(content(&registry, &bytes).await.is_err());
        }
        assert_eq!(objects(&registry, &store).await, 0, "{fault:?}");
    }
    store.set(Step::Put, None);
    store.set(Step::Finish, None);
    for bytes in [vec![3; SMALL_BYTES], vec![3; LARGE_BYTES]] {
        push(&registry, &bytes).await.unwrap();
        assert!(content(&registry, &bytes).await.unwrap() == bytes);
    }
}

/// Half a write is cut off by the next writer, who goes on where the session was recorded.
#[tokio::test]
async fn half_a_write_is_as_good_as_none() {
    let directory = tempfile::tempdir().unwrap();
    let (registry, store) = registry(directory.path()).await;
    let bytes: Vec<u8> = (0..LARGE_BYTES as u32 / 4).flat_map(u32::to_le_bytes).collect();
    let id = registry
        .start_upload(&name(), "tester", Algorithm::Sha256)
        .await
        .unwrap();
    let session = Session {
        id,
        repository: name(),
    };
    let append = |part: &[u8]| registry.append(session.clone(), Chunk::default(), body(part));
    let (first, rest) = bytes.split_at(200_000);
    append(first).await.unwrap();
    store.set(Step::Append, Some(Fault::Partly(INPUT_OUTPUT)));
    assert!(append(rest).await.is_err());
    assert_eq!(registry.upload_offset(&session).await.unwrap(), 200_000);
    store.set(Step::Append, None);
    append(rest).await.unwrap();
    registry
        .finish(
            session.clone(),
            Digest::sha256(&bytes),
            Chunk::default(),
            body(b""),
        )
        .await
        .unwrap();
    assert!(content(&registry, &bytes).await.unwrap() == bytes);

    store.set(Step::Read, Some(Fault::Partly(INPUT_OUTPUT)));
    assert!(
        content(&registry, &bytes).await.is_err(),
        "half a blob is no blob"
    );
}

/// The session is cancelled while its object is being stored.
#[tokio::test]
async fn a_cancelled_upload_that_is_stored_late_is_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let (registry, store) = registry(directory.path()).await;
    let id = registry
        .start_upload(&name(), "tester", Algorithm::Sha256)
        .await
        .unwrap();
    let session = Session {
        id,
        repository: name(),
    };
    store.set(Step::Put, Some(Fault::Late(Duration::from_millis(300))));
    let bytes = vec![4; SMALL_BYTES];
    let finishing = registry.finish(
        session.clone(),
        Digest::sha256(&bytes),
        Chunk::default(),
        body(&bytes),
    );
    let cancelling = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        registry.cancel_upload(session.clone()).await
    };
    let (finished, cancelled) = tokio::join!(finishing, cancelling);
    cancelled.unwrap();
    assert!(matches!(finished, Err(RegistryError::UploadUnknown(_))));
    assert!(content(&registry, &bytes).await.is_err());
    assert_eq!(objects(&registry, &store).await, 0);
}

#[tokio::test]
async fn a_deletion_that_fails_keeps_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let (registry, store) = registry(directory.path()).await;
    store.set(Step::Finish, Some(Fault::Unsaid(INPUT_OUTPUT)));
    assert!(push(&registry, &[5; LARGE_BYTES]).await.is_err());
    store.set(Step::Delete, Some(Fault::Fails(INPUT_OUTPUT)));
    registry.clean_some().await.unwrap();
    let left = all(&store).await;
    assert_eq!(left.len(), 1, "nothing was deleted");
    // It is still claimed by the round that failed, and keeps no other.
    store.set(Step::Delete, None);
    assert!(push(&registry, &[6; LARGE_BYTES]).await.is_err());
    assert_eq!(all(&store).await.len(), 2);
    registry.clean_some().await.unwrap();
    assert_eq!(all(&store).await, left);
}
