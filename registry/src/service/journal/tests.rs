//! Losing the database, with real stores.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use oci::{Digest, Reference, RepoName};

use crate::config::{Config, Limits};
use crate::metadata::sqlite::Sqlite;
use crate::metadata::{Origin, Upkeep as _};
use crate::service::jobs::Turn;
use crate::service::{Chunk, PushManifest, Registry};
use crate::storage::filesystem::Filesystem;
use crate::storage::{BlobStore as _, UploadId};

const NO_CHUNK: Chunk = Chunk {
    offset: None,
    length: None,
};

async fn open(directory: &Path) -> Arc<Registry> {
    let database = directory.join("registry.db");
    let metadata = Sqlite::open(&database, &Limits::default()).await.unwrap();
    let store = Filesystem::open(directory).await.unwrap();
    let uuid = metadata.opened().await.unwrap().store_uuid;
    assert_eq!(store.identity(&uuid).await.unwrap(), uuid);
    let limits = Limits::default();
    Arc::new(Registry::new(Arc::new(metadata), Arc::new(store), limits, false))
}

async fn close(registry: Arc<Registry>) {
    registry.metadata.close().await.unwrap();
}

fn repository() -> RepoName {
    "team/app".parse().unwrap()
}

async fn push(registry: &Arc<Registry>, content: &str, tag: &str) -> Digest {
    let blob = format!("{{\"content\":\"{content}\"}}");
    let digest = Digest::sha256(blob.as_bytes());
    let body = futures::stream::iter([Ok(Bytes::from(blob.clone()))]);
    let upload = registry
        .push_blob(&repository(), "tester", digest, NO_CHUNK, Box::pin(body))
        .await;
    upload.unwrap();
    let descriptor =
        |media: &str| serde_json::json!({ "mediaType": media, "digest": digest, "size": blob.len() });
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar")],
    });
    let push = PushManifest {
        repository: repository(),
        actor: "tester".to_owned(),
        origin: Origin::default(),
        content_type: None,
        bytes: Bytes::from(manifest.to_string()),
        digest: None,
        tags: vec![tag.parse().unwrap()],
        sparse: false,
    };
    registry.push_manifest(push).await.unwrap().digest
}

async fn tagged(registry: &Arc<Registry>, tag: &str) -> Option<Digest> {
    let reference = Reference::Tag(tag.parse().unwrap());
    let found = registry.manifest(&repository(), &reference).await.ok()?;
    let manifest = oci::Manifest::parse(Some(&found.media_type), found.bytes.to_vec()).unwrap();
    for blob in manifest.blobs() {
        let link = registry
            .metadata
            .find_blob(&repository(), &blob.digest)
            .await
            .unwrap();
        assert_eq!(link.expect("the blob is visible").size, blob.size);
    }
    Some(found.digest)
}

fn turn() -> Turn {
    Turn::for_test(Some(1))
}

fn config(directory: &Path) -> Config {
    Config::new(directory)
}

#[tokio::test]
async fn a_lost_database_comes_back_with_its_tags() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let registry = open(path).await;
    let first = push(&registry, "one", "v1").await;
    push(&registry, "two", "gone").await;
    push(&registry, "three", "moved").await;
    registry.journal_events(&turn()).await.unwrap();
    // What a snapshot has, and what only segments after it have.
    let position = registry.metadata.journal_position().await.unwrap();
    registry.write_snapshot(position).await.unwrap();
    let moved = push(&registry, "four", "moved").await;
    let gone = Reference::Tag("gone".parse().unwrap());
    registry
        .delete_manifest(&repository(), &gone, "tester")
        .await
        .unwrap();
    let deleted = push(&registry, "five", "trashed").await;
    let deleted = Reference::Digest(deleted);
    registry
        .delete_manifest(&repository(), &deleted, "tester")
        .await
        .unwrap();
    registry.journal_events(&turn()).await.unwrap();
    assert!(registry.metadata.events_to_journal(10).await.unwrap().is_empty());
    close(registry).await;
    std::fs::remove_file(path.join("registry.db")).unwrap();

    let rebuilt = crate::rebuild::rebuild_metadata(&config(path), false)
        .await
        .unwrap();
    assert_eq!((rebuilt.blobs, rebuilt.replaced), (5, None));
    let registry = open(path).await;
    assert_eq!(tagged(&registry, "v1").await, Some(first));
    assert_eq!(tagged(&registry, "moved").await, Some(moved));
    assert_eq!(tagged(&registry, "gone").await, None);
    assert_eq!(tagged(&registry, "trashed").await, None);
    assert!(registry.journal_ahead().await.unwrap().is_none());
    // The journal goes on where it was.
    let again = push(&registry, "six", "v2").await;
    registry.journal_events(&turn()).await.unwrap();
    close(registry).await;
    crate::rebuild::rebuild_metadata(&config(path), true)
        .await
        .unwrap();
    assert_eq!(tagged(&open(path).await, "v2").await, Some(again));
}

/// As a backup has it: the journal is copied first, so that it is never newer than its database.
#[tokio::test]
async fn a_journal_that_is_older_than_its_database_is_completed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let segments = || {
        let names = std::fs::read_dir(path.join("meta/j")).unwrap();
        let names = names.map(|entry| entry.unwrap().path());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let registry = open(path).await;
    let first = push(&registry, "one", "v1").await;
    registry.journal_events(&turn()).await.unwrap();
    let copied = segments();
    let second = push(&registry, "two", "v2").await;
    registry.journal_events(&turn()).await.unwrap();
    for lost in segments().difference(&copied) {
        std::fs::remove_file(lost).unwrap();
    }
    assert!(registry.journal_ahead().await.unwrap().is_none());
    registry.close_gap().await.unwrap();
    registry.close_gap().await.unwrap();
    let third = push(&registry, "three", "v3").await;
    registry.journal_events(&turn()).await.unwrap();
    close(registry).await;
    crate::rebuild::rebuild_metadata(&config(path), true)
        .await
        .unwrap();
    let rebuilt = open(path).await;
    for (tag, digest) in [("v1", first), ("v2", second), ("v3", third)] {
        assert_eq!(tagged(&rebuilt, tag).await, Some(digest), "{tag}");
    }
}

#[tokio::test]
async fn a_database_from_a_backup_is_noticed_and_brought_up_to_date() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let registry = open(path).await;
    let first = push(&registry, "one", "v1").await;
    registry.journal_events(&turn()).await.unwrap();
    let (database, backup) = (path.join("registry.db"), path.join("backup.db"));
    crate::metadata::sqlite::copy(&database, &backup).await.unwrap();
    let second = push(&registry, "two", "v2").await;
    registry.journal_events(&turn()).await.unwrap();
    assert!(registry.journal_ahead().await.unwrap().is_none());
    close(registry).await;
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(path.join(format!("registry.db{suffix}")));
    }
    std::fs::rename(&backup, &database).unwrap();

    let registry = open(path).await;
    let ahead = registry.journal_ahead().await.unwrap().expect("it is old");
    assert!(ahead.to_string().contains("rebuild-metadata"));
    assert_eq!(tagged(&registry, "v2").await, None);
    close(registry).await;
    let rebuilt = crate::rebuild::rebuild_metadata(&config(path), false)
        .await
        .unwrap();
    assert_eq!(rebuilt.pushes, 1);
    assert!(rebuilt.replaced.unwrap().exists());
    let registry = open(path).await;
    assert!(registry.journal_ahead().await.unwrap().is_none());
    assert_eq!(tagged(&registry, "v1").await, Some(first));
    assert_eq!(tagged(&registry, "v2").await, Some(second));
}

/// The database may crash before it knows of the last segment: not old, only late.
#[tokio::test]
async fn a_segment_that_the_database_did_not_record_is_no_alarm() {
    let directory = tempfile::tempdir().unwrap();
    let registry = open(directory.path()).await;
    push(&registry, "one", "v1").await;
    let events = registry.metadata.events_to_journal(10).await.unwrap();
    let name = super::names::segment(1, 1, events[0].id);
    let data = super::format::Segment::default().finish().unwrap();
    registry.store.put_file(&name, data).await.unwrap();
    assert!(registry.journal_ahead().await.unwrap().is_none());
    let stray = registry.store.list_uploads().await.unwrap();
    assert_eq!(stray, [] as [UploadId; 0]);
}
