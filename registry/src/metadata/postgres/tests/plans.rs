//! No query's cost may depend on how much there is.

use sqlx::Connection;
use sqlx::postgres::PgPool;

use super::super::{blobs, cache, links, lists, manifests, outbox, resolver, tags, upkeep};
use super::*;

/// Everything that requests and rounds read, with the index that must serve it.
const QUERIES: [(&str, &str); 25] = [
    (lists::TAGS, "tags_pkey"),
    (lists::REPOSITORIES, "repositories_in_catalog"),
    (lists::REFERRERS, "manifests_as_referrers"),
    (lists::REFERRERS_OF_TYPE, "manifests_as_referrers"),
    (resolver::TAGS, "((repository_id = r.id) AND (name = q.name))"),
    (resolver::TAGS, "repositories_by_name"),
    (
        resolver::MANIFESTS,
        "((repository_id = r.id) AND (digest = q.digest))",
    ),
    (resolver::BLOBS, "blobs_digest_key"),
    (resolver::BLOBS, "((blob_id = b.id) AND (repository_id = r.id))"),
    (blobs::REPOSITORIES_OF, "repository_blobs_by_blob"),
    (
        manifests::MISSING_BLOBS,
        "((blob_id = b.id) AND (repository_id = $1))",
    ),
    (
        manifests::HOLD_BLOBS,
        "((blob_id = b.id) AND (repository_id = $1))",
    ),
    (
        manifests::MISSING_CHILDREN,
        "((repository_id = $1) AND (digest = q.digest))",
    ),
    (links::HOLD, "blobs_digest_key"),
    (links::HOLD, "repository_blobs_pkey"),
    (links::LOCK, "repository_blobs_pkey"),
    (links::REVIEW, "repository_blobs_pkey"),
    (tags::PREVIOUS, "tags_pkey"),
    (cache::RECORDS, "((repository_id = r.id) AND (key = q.key))"),
    (cache::MEMOS, "((repository_id = r.id) AND (key = q.key))"),
    (outbox::TO_JOURNAL, "outbox_to_journal"),
    (outbox::TO_FAN_OUT, "outbox_to_fan_out"),
    (outbox::DUE, "webhook_deliveries_by_due"),
    (upkeep::EXPIRED, "uploads_by_expiry"),
    (upkeep::DUE, "doomed_by_due"),
];

#[tokio::test(flavor = "multi_thread")]
async fn no_query_scans_a_table() {
    let url = TestServer::shared().database().await;
    let store = open(&url).await.unwrap();
    fill(&store.pool()).await;
    for (sql, index) in QUERIES {
        let plan = plan(&store.pool(), sql).await;
        assert!(!plan.contains("Seq Scan"), "{sql}\n{plan}");
        assert!(plan.contains(index), "{sql}\n{plan}");
    }
    for sql in [
        lists::TAGS,
        lists::REPOSITORIES,
        lists::REFERRERS,
        lists::REFERRERS_OF_TYPE,
        upkeep::EXPIRED,
        upkeep::DUE,
    ] {
        let plan = plan(&store.pool(), sql).await;
        assert!(
            !plan.contains("Sort"),
            "a page sorts what it walks\n{sql}\n{plan}"
        );
    }
}

/// The plan for any parameters.
async fn plan(pool: &PgPool, sql: &str) -> String {
    let parameters = (1..10).take_while(|n| sql.contains(&format!("${n}"))).count();
    let nulls = vec!["NULL"; parameters].join(", ");
    let mut connection = pool.acquire().await.unwrap();
    let prepare =
        format!("SET plan_cache_mode = force_generic_plan; DEALLOCATE ALL; PREPARE question AS {sql}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(prepare))
        .execute(&mut *connection)
        .await
        .unwrap();
    let explain = format!("EXPLAIN EXECUTE question({nulls})");
    let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(explain))
        .fetch_all(&mut *connection)
        .await
        .unwrap();
    // Statements that the connection itself has prepared are gone.
    connection.detach().close().await.unwrap();
    let line = |row: &sqlx::postgres::PgRow| sqlx::Row::get::<String, _>(row, 0);
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Enough of everything that a plan for little would be another one.
async fn fill(pool: &PgPool) {
    sqlx::raw_sql(
        "INSERT INTO repositories (name, manifest_count) SELECT 'r/' || i, 1 FROM generate_series(1, 500) i;
         INSERT INTO blobs (digest, size, storage_key, created_at, verified_at)
             SELECT '\\x01'::bytea || sha256(i::text::bytea), 1, 'k' || i, 0, 0 FROM generate_series(1, 5000) i;
         INSERT INTO repository_blobs (repository_id, blob_id, linked_at)
             SELECT 1 + id % 500, id, 0 FROM blobs;
         INSERT INTO manifests (repository_id, digest, media_type, subject, size, pushed_at, pushed_by, payload)
             SELECT 1 + id % 500, digest, 'm', digest, 1, 0, '', '' FROM blobs;
         INSERT INTO tags (repository_id, name, manifest_id, updated_at, updated_by)
             SELECT repository_id, 't' || id, id, 0, '' FROM manifests;
         INSERT INTO uploads (id, repository, principal, algorithm, boot_id, created_at, expires_at)
             SELECT int8send(i), 'r/1', '', 1, '', 0, i FROM generate_series(1, 2000) i;
         INSERT INTO doomed (key, due_at) SELECT 'd' || i, i FROM generate_series(1, 2000) i;
         INSERT INTO cache_records SELECT 1 + i % 500, 'c' || i, '', 0 FROM generate_series(1, 2000) i;
         INSERT INTO cache_memos SELECT 1 + i % 500, 'c' || i, '', 0 FROM generate_series(1, 2000) i;
         ANALYZE",
    )
    .execute(pool)
    .await
    .unwrap();
}
