//! That no statement walks through a repository to find one row: SQLite calls that a search too.

use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use super::{Sqlite, cache, manifests, trash};
use crate::config::Limits;
use crate::metadata::collection::sql;

/// What a push, a deletion, a purge and a look-up run, the rows that foreign keys look for included.
const STATEMENTS: [&str; 9] = [
    manifests::REFER,
    trash::PUT_IN,
    sql::DELETE_MANIFEST,
    sql::DELETE_LINK,
    sql::DELETE_RECORD,
    sql::DELETED_WITH,
    sql::REVIEW_BLOBS,
    cache::RECORDS,
    cache::MEMOS,
];

#[tokio::test]
async fn no_statement_walks_through_a_repository() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.db");
    let store = Sqlite::open(&path, &Limits::default()).await.unwrap();
    // As the writer has it.
    let options = SqliteConnectOptions::new().filename(&path).foreign_keys(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    for statement in STATEMENTS.iter().flat_map(|several| several.split(';')) {
        let plan: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")))
                .fetch_all(&mut connection)
                .await
                .unwrap();
        for (.., step) in &plan {
            assert!(!step.ends_with("(repository_id=?)"), "{statement}: {plan:?}");
        }
    }
    drop(store);
}

/// Without statistics an index counts as a short list for each value of its first column.
#[tokio::test]
async fn every_index_of_a_repository_has_its_statistics() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.db");
    let store = Sqlite::open(&path, &Limits::default()).await.unwrap();
    let without: Vec<String> = sqlx::query_scalar(
        "SELECT m.name FROM sqlite_master m JOIN pragma_index_info(m.name) i ON i.seqno = 0
         WHERE m.type = 'index' AND i.name = 'repository_id'
             AND NOT EXISTS (SELECT 1 FROM sqlite_stat1 s WHERE s.idx = m.name)",
    )
    .fetch_all(&store.readers)
    .await
    .unwrap();
    assert!(without.is_empty(), "add them to a migration: {without:?}");
}
