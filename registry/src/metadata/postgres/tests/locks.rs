//! Collection against those who come to or leave a link in the same moment, each step held still by a lock.

use std::time::Instant;

use oci::Digest;
use sqlx::{Connection, PgConnection};

use super::super::links;
use super::*;
use crate::metadata::suite::{blob, manifest, repo};
use crate::metadata::{CacheRecords, Manifests, PutOutcome};

const WAIT_MAX: Duration = Duration::from_secs(60);

struct Scene {
    store: Arc<Postgres>,
    /// Somebody else's connection.
    other: PgConnection,
    layer: Digest,
    repository: i64,
    blob: i64,
}

async fn scene() -> Scene {
    let url = TestServer::shared().database().await;
    let store = Arc::new(open(&url).await.unwrap());
    let layer = blob(store.as_ref(), &repo("app"), "a layer").await;
    let mut other = PgConnection::connect(&url).await.unwrap();
    let (repository, blob) = sqlx::query_as("SELECT repository_id, blob_id FROM repository_blobs")
        .fetch_one(&mut other)
        .await
        .unwrap();
    Scene {
        store,
        other,
        layer,
        repository,
        blob,
    }
}

impl Scene {
    async fn does(&mut self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&mut self.other).await.unwrap();
    }

    /// Until somebody waits for a lock of the other connection.
    async fn until_somebody_waits(&mut self) {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            assert!(Instant::now() < deadline, "nobody waits for the lock");
            // Not pg_stat_activity, of which a transaction keeps what it saw first.
            let waiting: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid)))",
            )
            .fetch_one(&mut self.other)
            .await
            .unwrap();
            if waiting {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn link_has_a_review(&mut self) -> bool {
        sqlx::query_scalar("SELECT review_at IS NOT NULL FROM repository_blobs")
            .fetch_one(&mut self.other)
            .await
            .unwrap()
    }
}

/// A worker that keeps a link because it still sees its manifest, which goes in the same moment.
#[tokio::test(flavor = "multi_thread")]
async fn no_review_is_lost_to_a_worker_that_keeps_the_link() {
    let mut scene = scene().await;
    scene
        .does("BEGIN; SELECT 1 FROM repository_blobs FOR UPDATE")
        .await;
    let (store, repository, layer) = (Arc::clone(&scene.store), scene.repository, scene.blob);
    let leaving = tokio::spawn(async move {
        let mut tx = store.begin(Durability::Durable).await.unwrap();
        links::review(&mut tx, repository, &[layer], 1, "a test")
            .await
            .unwrap();
        tx.commit().await.unwrap();
    });
    scene.until_somebody_waits().await;
    scene
        .does("UPDATE repository_blobs SET review_at = NULL; COMMIT")
        .await;
    leaving.await.unwrap();
    assert!(
        scene.link_has_a_review().await,
        "nobody will ever look at it again"
    );
}

/// Between the check that a blob is here and the reference to it nobody may take the link.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_manifest_needs_stays_from_the_check_to_the_commit() {
    let mut scene = scene().await;
    let mut put = manifest(&repo("app"), "an image");
    put.blobs = vec![scene.layer];
    scene.does("BEGIN").await;
    // Holds the manifest still after its check: the same one, not committed.
    sqlx::query(
        "INSERT INTO manifests (repository_id, digest, media_type, artifact_type, size, pushed_at, pushed_by, payload)
         VALUES ($1, $2, '', '', 0, 0, '', '')",
    )
    .bind(scene.repository)
    .bind(put.digest.to_bytes())
    .execute(&mut scene.other)
    .await
    .unwrap();
    let store = Arc::clone(&scene.store);
    let putting = tokio::spawn(async move { store.put_manifest(put).await });
    scene.until_somebody_waits().await;
    let taken = sqlx::query("SELECT 1 FROM repository_blobs FOR UPDATE NOWAIT")
        .execute(&mut scene.other)
        .await;
    let refused = taken.expect_err("a worker could take the link");
    let code = refused.as_database_error().and_then(|error| error.code());
    assert_eq!(code.as_deref(), Some("55P03"), "{refused}");
    scene.does("ROLLBACK").await;
    assert_eq!(putting.await.unwrap().unwrap(), PutOutcome::Stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_cache_record_leaves_a_review() {
    let mut scene = scene().await;
    let here = repo("app");
    let other = blob(scene.store.as_ref(), &here, "another layer").await;
    let records: [&[Digest]; 2] = [&[scene.layer], &[other]];
    for (step, blobs) in records.into_iter().enumerate() {
        if step == 1 {
            scene
                .does("BEGIN; SELECT 1 FROM repository_blobs FOR NO KEY UPDATE")
                .await;
        }
        let (store, here, blobs) = (Arc::clone(&scene.store), here.clone(), blobs.to_vec());
        let putting = tokio::spawn(async move { store.put_cache_record(&here, "key", "{}", &blobs).await });
        if step == 1 {
            scene.until_somebody_waits().await;
            scene
                .does("UPDATE repository_blobs SET review_at = NULL; COMMIT")
                .await;
        }
        assert_eq!(putting.await.unwrap().unwrap(), []);
    }
    let reviewed: Vec<i64> =
        sqlx::query_scalar("SELECT blob_id FROM repository_blobs WHERE review_at IS NOT NULL")
            .fetch_all(&mut scene.other)
            .await
            .unwrap();
    assert_eq!(reviewed, [scene.blob]);
}
