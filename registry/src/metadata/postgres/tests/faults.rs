//! What a server that goes away, and replicas that collide, do to what was answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use oci::{Digest, Tag};
use sqlx::Connection;

use super::*;
use crate::metadata::suite::{blob, manifest, repo, tag};
use crate::metadata::{Blobs, Lists, Manifests, PutOutcome};

/// Requests fail cleanly or wait; what was answered is there; the pool recovers by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_answered_is_lost_when_the_server_restarts_and_crashes() {
    let server = Arc::new(TestServer::start());
    let url = server.database().await;
    let store = Arc::new(open(&url).await.unwrap());
    let until = Instant::now() + Duration::from_secs(6);
    let writers = (0..8).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let here = repo(&format!("load/{}", writer % 3));
            let (mut stored, mut refused) = (Vec::new(), 0);
            for round in 0.. {
                if Instant::now() > until {
                    break;
                }
                let name = tag(&format!("w{writer}-{round}"));
                let mut put = manifest(&here, &format!("{writer} {round}"));
                put.tags = vec![name.clone()];
                let digest = put.digest;
                match store.put_manifest(put).await {
                    Ok(PutOutcome::Stored) => stored.push((name, digest)),
                    Ok(other) => panic!("{other:?}"),
                    Err(MetadataError::Unavailable { .. }) => refused += 1,
                    Err(other) => panic!("{other:?}"),
                }
            }
            (here, stored, refused)
        })
    });
    let writers: Vec<_> = writers.collect();
    for order in ["restart", "crash", "restart"] {
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let server = Arc::clone(&server);
        tokio::task::spawn_blocking(move || server.order(order))
            .await
            .unwrap();
    }
    let mut total = 0;
    for writer in writers {
        let (here, stored, refused) = writer.await.unwrap();
        // Only commits whose outcome nobody knows are refused: one a writer and outage.
        assert!(refused <= 3, "{refused} requests did not wait");
        total += stored.len();
        for (name, digest) in stored {
            assert_eq!(
                store.resolve_tag(&here, &name).await.unwrap(),
                Some(digest),
                "{name}"
            );
        }
    }
    assert!(total > 100, "only {total} in all");
    store.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stays_away_is_reported_as_such() {
    let server = TestServer::start();
    let url = server.database().await;
    let config = DatabaseConfig {
        wait_max: Duration::from_millis(500),
        ..DatabaseConfig::default()
    };
    let store = Postgres::open(&url, &config, "boot".to_owned(), &Limits::default())
        .await
        .unwrap();
    server.order("stop");
    let begun = Instant::now();
    let looked_up = store.resolve_tag(&repo("a"), &tag("b")).await;
    assert!(
        matches!(looked_up, Err(MetadataError::Unavailable { .. })),
        "{looked_up:?}"
    );
    let put = store.put_manifest(manifest(&repo("a"), "b")).await;
    assert!(matches!(put, Err(MetadataError::Unavailable { .. })), "{put:?}");
    assert!(store.ping().await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    server.order("start");
    store.ping().await.unwrap();
    assert_eq!(store.resolve_tag(&repo("a"), &tag("b")).await.unwrap(), None);
}

/// Two replicas push the same blobs and the same hundred tags: both succeed, and everybody sees the same afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_replicas_push_the_same_hundred_tags() {
    let url = TestServer::shared().database().await;
    let replicas = [
        Arc::new(open(&url).await.unwrap()),
        Arc::new(open(&url).await.unwrap()),
    ];
    let here = repo("contended");
    let pushers = (0..8).map(|pusher: usize| {
        let (store, here) = (Arc::clone(&replicas[pusher % 2]), here.clone());
        tokio::spawn(async move {
            for index in 0..100 {
                let layer = blob(&*store, &here, &format!("layer {}", index % 7)).await;
                // Every second tag is fought for with different manifests.
                let content = if index % 2 == 0 { 0 } else { pusher };
                let mut put = manifest(&here, &format!("manifest {index} {content}"));
                put.blobs = vec![layer];
                put.tags = vec![tag(&format!("t{index}"))];
                assert_eq!(store.put_manifest(put).await.unwrap(), PutOutcome::Stored);
            }
        })
    });
    for pusher in pushers.collect::<Vec<_>>() {
        pusher.await.unwrap();
    }
    let [one, other] = &replicas;
    let tags = one.list_tags(&here, None, 1000).await.unwrap().unwrap();
    assert_eq!(tags.len(), 100);
    let mut named: BTreeMap<Tag, Digest> = BTreeMap::new();
    for name in tags {
        let digest = one.resolve_tag(&here, &name).await.unwrap().unwrap();
        assert_eq!(other.resolve_tag(&here, &name).await.unwrap(), Some(digest));
        assert!(other.find_manifest(&here, &digest).await.unwrap().is_some());
        named.insert(name, digest);
    }
    for index in (0..100).step_by(2) {
        let expected = Digest::sha256(format!("manifest {index} 0").as_bytes());
        assert_eq!(named[&tag(&format!("t{index}"))], expected);
    }
    // Of each layer one object is left, the others are doomed.
    for layer in 0..7 {
        let digest = Digest::sha256(format!("layer {layer}").as_bytes());
        let found = one.find_blob(&here, &digest).await.unwrap().unwrap();
        assert_eq!(other.find_blob(&here, &digest).await.unwrap(), Some(found));
    }
    counts_are_right(&url).await;
}

async fn counts_are_right(url: &str) {
    let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
    let (counted, there): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT sum(manifest_count)::bigint FROM repositories),
             (SELECT count(*) FROM manifests WHERE deleted_at IS NULL)",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert_eq!(counted, there);
    let (charged, used): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT sum(bytes)::bigint FROM repository_usage),
             (SELECT sum(b.size)::bigint FROM repository_blobs l JOIN blobs b ON b.id = l.blob_id)
                 + (SELECT sum(size)::bigint FROM manifests)",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert_eq!(charged, used);
}

/// What one replica changes the others see at once: nothing is kept that another may change.
#[tokio::test(flavor = "multi_thread")]
async fn a_moved_tag_is_seen_by_every_replica_at_once() {
    let url = TestServer::shared().database().await;
    let writer = open(&url).await.unwrap();
    let reader = open(&url).await.unwrap();
    let here = repo("moving");
    for round in 0..50 {
        let mut put = manifest(&here, &format!("version {}", round % 5));
        put.tags = vec![tag("latest")];
        let digest = put.digest;
        assert_eq!(writer.put_manifest(put).await.unwrap(), PutOutcome::Stored);
        let found = reader.find_tagged(&here, &tag("latest")).await.unwrap();
        assert_eq!(found.map(|found| found.digest), Some(digest));
    }
    let layer = blob(&writer, &here, "shared").await;
    assert!(reader.find_blob(&here, &layer).await.unwrap().is_some());
    writer.hide_blob(&here, &layer).await.unwrap();
    assert_eq!(reader.find_blob(&here, &layer).await.unwrap(), None);
    let last = Digest::sha256(b"version 4");
    writer.delete_manifest(&here, &last, &[], "tester").await.unwrap();
    assert_eq!(reader.find_manifest(&here, &last).await.unwrap(), None);
    assert_eq!(reader.find_tagged(&here, &tag("latest")).await.unwrap(), None);
}
