//! Two neighbouring releases over one database.

use sqlx::{Connection, PgConnection};

use super::*;
use crate::metadata::suite::{blob, manifest, repo, tag};
use crate::metadata::{Blobs, Manifests, PutOutcome};

/// What the next release's migrations may do while this one runs beside it, and what its successor's end that with.
#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_is_used_until_it_says_no() {
    let url = TestServer::shared().database().await;
    let running = open(&url).await.unwrap();
    let mut next = PgConnection::connect(&url).await.unwrap();
    // Expand: additions that this binary's statements don't name, and a migration it does not know.
    sqlx::raw_sql(
        "ALTER TABLE tags ADD COLUMN note TEXT; ALTER TABLE blobs ADD COLUMN tier BIGINT NOT NULL DEFAULT 0;
         CREATE INDEX tags_by_note ON tags (note); CREATE TABLE novelties (id BIGINT PRIMARY KEY);
         INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (999, 'of the next release', true, '', 0)",
    )
    .execute(&mut next)
    .await
    .unwrap();
    // Both the replica that was running and one that starts now go on, also with statements they had prepared.
    let started = open(&url).await.unwrap();
    for (index, store) in [&running, &started].into_iter().enumerate() {
        let here = repo("rolling");
        let layer = blob(store, &here, &format!("layer {index}")).await;
        let mut put = manifest(&here, &format!("manifest {index}"));
        put.blobs = vec![layer];
        put.tags = vec![tag("latest")];
        let digest = put.digest;
        assert_eq!(store.put_manifest(put).await.unwrap(), PutOutcome::Stored);
        assert_eq!(
            running.resolve_tag(&here, &tag("latest")).await.unwrap(),
            Some(digest)
        );
        assert!(started.find_blob(&here, &layer).await.unwrap().is_some());
        store.ping().await.unwrap();
    }
    // Contract, a release later.
    sqlx::raw_sql("UPDATE store SET min_binary = 2")
        .execute(&mut next)
        .await
        .unwrap();
    let refused = open(&url).await.map(|_| ()).unwrap_err();
    assert!(matches!(refused, MetadataError::TooNew { needed: 2, ours: 1 }));
    let unready = running.ping().await.unwrap_err();
    assert!(
        matches!(unready, MetadataError::TooNew { .. }),
        "the balancer is told"
    );
}

/// An older binary changes nothing in a database that it may not write.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_needs_a_newer_binary_is_left_alone() {
    let url = TestServer::shared().database().await;
    let mut next = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("CREATE TABLE store (min_binary BIGINT); INSERT INTO store VALUES (7)")
        .execute(&mut next)
        .await
        .unwrap();
    assert!(open(&url).await.is_err());
    let tables: i64 =
        sqlx::query_scalar("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'")
            .fetch_one(&mut next)
            .await
            .unwrap();
    assert_eq!(tables, 1);
}
