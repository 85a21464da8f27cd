//! The service over real stores, in situations that clients alone don't bring about.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use oci::{Algorithm, Digest, RepoName};

use super::error::BodyError;
use super::{BodyStream, Chunk, Registry, RegistryError, Session};
use crate::config::Limits;
use crate::metadata::sqlite::Sqlite;
use crate::storage::filesystem::Filesystem;
use crate::storage::suite::Row;
use crate::storage::{Settle, UploadId};

const NO_CHUNK: Chunk = Chunk {
    offset: None,
    length: None,
};

async fn registry(directory: &Path, limits: Limits) -> Arc<Registry> {
    let metadata = Sqlite::open(&directory.join("registry.db"), &limits)
        .await
        .unwrap();
    let store = Filesystem::open(directory).await.unwrap();
    Arc::new(Registry::new(Arc::new(metadata), Arc::new(store), limits, false))
}

fn name() -> RepoName {
    "app".parse().unwrap()
}

fn body(pieces: &[&[u8]]) -> BodyStream {
    let pieces: Vec<Result<Bytes, BodyError>> = pieces
        .iter()
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    Box::pin(futures::stream::iter(pieces))
}

/// A body whose client hangs up after these bytes.
fn broken(pieces: &[&[u8]]) -> BodyStream {
    Box::pin(body(pieces).chain(futures::stream::once(async {
        Err(BodyError::from("connection reset"))
    })))
}

async fn open(registry: &Registry) -> Session {
    let id = registry
        .start_upload(&name(), "tester", Algorithm::Sha256)
        .await
        .unwrap();
    Session {
        id,
        repository: name(),
    }
}

/// Bytes of a session that no table knows.
async fn stray_bytes(registry: &Registry, id: UploadId) {
    let row = Row::default();
    let opened = registry.store.open_upload(row.upload(id, 0), row.log()).await;
    let mut writer = opened.unwrap();
    writer.append(vec![Bytes::from_static(b"stray")]).await.unwrap();
    writer.settle(Settle::Now).await.unwrap();
}

async fn content(registry: &Registry, digest: &Digest) -> Vec<u8> {
    let blob = registry.blob(&name(), digest).await.unwrap();
    let open = registry.open_blob(&blob, 0..blob.size).await.unwrap();
    open.bytes.try_collect::<Vec<Bytes>>().await.unwrap().concat()
}

async fn objects(registry: &Registry) -> usize {
    let mut count = 0;
    let mut after = None;
    loop {
        let page = registry.store.list(after.as_ref()).await.unwrap();
        let Some(last) = page.last() else { return count };
        count += page.len();
        after = Some(last.clone());
    }
}

#[tokio::test]
async fn what_came_before_a_hang_up_is_kept_and_continued() {
    let directory = tempfile::tempdir().unwrap();
    let registry = registry(directory.path(), Limits::default()).await;
    // Larger than what is taken in one go, so that it is written as it comes.
    let whole: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let digest = Digest::sha256(&whole);
    let session = open(&registry).await;

    let (first, rest) = whole.split_at(700_000);
    let error = registry
        .append(session.clone(), NO_CHUNK, broken(&[first]))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            RegistryError::BodyBroken {
                received: 700_000,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(registry.upload_offset(&session).await.unwrap(), 700_000);

    // A chunk that does not say the truth changes nothing.
    let lying = Chunk {
        offset: Some(700_000),
        length: Some(3),
    };
    let error = registry
        .append(session.clone(), lying, body(&[rest]))
        .await
        .unwrap_err();
    assert!(
        matches!(error, RegistryError::BodyLength { expected: 3, .. }),
        "{error}"
    );
    let wrong = registry
        .finish(session.clone(), Digest::sha256(b"else"), NO_CHUNK, body(&[rest]))
        .await;
    assert!(matches!(wrong, Err(RegistryError::DigestMismatch { .. })));
    assert_eq!(registry.upload_offset(&session).await.unwrap(), 700_000);

    registry
        .finish(session.clone(), digest, NO_CHUNK, body(&[rest]))
        .await
        .unwrap();
    assert!(content(&registry, &digest).await == whole);
    assert!(matches!(
        registry.upload_offset(&session).await,
        Err(RegistryError::UploadUnknown(_))
    ));
    assert_eq!(registry.store.list_uploads().await.unwrap(), []);
}

#[tokio::test]
async fn an_algorithm_named_at_the_end_hashes_everything_again() {
    let directory = tempfile::tempdir().unwrap();
    let registry = registry(directory.path(), Limits::default()).await;
    let session = open(&registry).await;
    registry
        .append(session.clone(), NO_CHUNK, body(&[b"first "]))
        .await
        .unwrap();
    let digest = Digest::of(Algorithm::Sha512, b"first second");
    registry
        .finish(session, digest, NO_CHUNK, body(&[b"second"]))
        .await
        .unwrap();
    assert_eq!(content(&registry, &digest).await, b"first second");
}

#[tokio::test]
async fn the_same_blob_at_the_same_time_is_stored_once_and_acknowledged_to_all() {
    let directory = tempfile::tempdir().unwrap();
    let registry = registry(directory.path(), Limits::default()).await;
    let whole = vec![7; 200_000];
    let digest = Digest::sha256(&whole);
    let pushes = (0..8).map(|_| {
        let (registry, whole) = (Arc::clone(&registry), whole.clone());
        async move {
            registry
                .push_blob(&name(), "tester", digest, NO_CHUNK, body(&[&whole]))
                .await
        }
    });
    for outcome in futures::future::join_all(pushes).await {
        outcome.unwrap();
    }
    while registry.clean_some().await.unwrap() {}
    assert_eq!(objects(&registry).await, 1, "the other copies were deleted");
    assert!(content(&registry, &digest).await == whole);
    assert_eq!(registry.store.list_uploads().await.unwrap(), []);
}

#[tokio::test]
async fn expired_sessions_leave_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits {
        upload_idle_max: Duration::from_millis(30),
        ..Limits::default()
    };
    let registry = registry(directory.path(), limits).await;
    let session = open(&registry).await;
    registry
        .append(session.clone(), NO_CHUNK, body(&[b"abandoned"]))
        .await
        .unwrap();
    assert_eq!(registry.store.list_uploads().await.unwrap(), [session.id]);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let late = registry.append(session, NO_CHUNK, body(&[b"late"])).await;
    assert!(matches!(late, Err(RegistryError::UploadUnknown(_))));
    while registry.clean_some().await.unwrap() {}
    assert_eq!(registry.store.list_uploads().await.unwrap(), []);
}

#[tokio::test]
async fn reconciling_spares_everything_that_is_known() {
    let directory = tempfile::tempdir().unwrap();
    let registry = registry(directory.path(), Limits::default()).await;
    let digest = Digest::sha256(b"known");
    registry
        .push_blob(&name(), "tester", digest, NO_CHUNK, body(&[b"known"]))
        .await
        .unwrap();
    let orphan = registry.store.new_name(&Digest::sha256(b"orphan"));
    let data = vec![Bytes::from_static(b"orphan")];
    registry
        .store
        .put(UploadId::random(), &orphan, data)
        .await
        .unwrap();

    Arc::clone(&registry).reconcile().await.unwrap();
    // The orphan is doomed, but late: the database might be the one that is wrong.
    while registry.clean_some().await.unwrap() {}
    assert_eq!(objects(&registry).await, 2);
    assert_eq!(
        registry.metadata.doom_orphans(&[orphan]).await.unwrap(),
        0,
        "it is doomed already"
    );
    assert_eq!(content(&registry, &digest).await, b"known");
}

#[tokio::test]
async fn stray_files_of_ended_sessions_are_dropped_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let registry = registry(directory.path(), Limits::default()).await;
    let live = open(&registry).await;
    registry
        .append(live.clone(), NO_CHUNK, body(&[b"live"]))
        .await
        .unwrap();
    let stray = UploadId::random();
    stray_bytes(&registry, stray).await;
    registry.drop_stray_uploads().await.unwrap();
    assert_eq!(registry.store.list_uploads().await.unwrap(), [live.id]);
}

/// A machine that went down may have lost bytes that were recorded: they are read again, not believed.
#[tokio::test]
async fn after_a_power_cut_a_session_trusts_only_what_is_on_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let (kept, lost) = {
        let registry = registry(directory.path(), Limits::default()).await;
        let (kept, lost) = (open(&registry).await, open(&registry).await);
        for session in [&kept, &lost] {
            registry
                .append(session.clone(), NO_CHUNK, body(&[b"recorded"]))
                .await
                .unwrap();
        }
        (kept, lost)
    };
    Sqlite::pretend_reboot(&directory.path().join("registry.db")).await;
    std::fs::write(directory.path().join("uploads").join(lost.id.to_string()), b"rec").unwrap();
    std::fs::write(
        directory.path().join("uploads").join(kept.id.to_string()),
        b"RECORDED",
    )
    .unwrap();

    let registry = registry(directory.path(), Limits::default()).await;
    let digest = Digest::sha256(b"RECORDED and more");
    registry
        .finish(kept, digest, NO_CHUNK, body(&[b" and more"]))
        .await
        .unwrap();
    assert_eq!(content(&registry, &digest).await, b"RECORDED and more");
    let gone = registry
        .append(lost.clone(), NO_CHUNK, body(&[b" and more"]))
        .await;
    assert!(matches!(gone, Err(RegistryError::UploadUnknown(_))));
    assert!(matches!(
        registry.upload_offset(&lost).await,
        Err(RegistryError::UploadUnknown(_))
    ));
}

#[tokio::test]
async fn sessions_that_are_only_open_outlive_an_orderly_restart() {
    let directory = tempfile::tempdir().unwrap();
    let session = {
        let registry = registry(directory.path(), Limits::default()).await;
        let session = open(&registry).await;
        registry.metadata.close().await.unwrap();
        session
    };
    let registry = registry(directory.path(), Limits::default()).await;
    let digest = Digest::sha256(b"late");
    registry
        .finish(session, digest, NO_CHUNK, body(&[b"late"]))
        .await
        .unwrap();
    assert_eq!(content(&registry, &digest).await, b"late");
}
