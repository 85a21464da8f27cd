//! Reading and writing values of our types.

use oci::{Digest, RepoName};
use sqlx::sqlite::SqliteConnection;

use super::super::{MetadataError, Result};

pub(super) use super::super::values::{corrupt, digest, repository, size, stored_size};

/// Names what was being done when a statement failed.
pub(super) trait During<T> {
    fn during(self, operation: &'static str) -> Result<T>;
}

impl<T> During<T> for Result<T, sqlx::Error> {
    fn during(self, operation: &'static str) -> Result<T> {
        self.map_err(database_error(operation))
    }
}

pub(super) fn database_error(operation: &'static str) -> impl Fn(sqlx::Error) -> MetadataError {
    move |source| MetadataError::Database {
        operation,
        source: Box::new(source),
    }
}

/// Digests as a JSON array of hex, for `json_each` and `unhex`.
pub(super) fn digest_list(digests: &[Digest]) -> String {
    let mut list = String::with_capacity(2 + digests.len() * 70);
    list.push('[');
    for (index, digest) in digests.iter().enumerate() {
        list.push_str(if index == 0 { "\"" } else { ",\"" });
        list.push_str(&hex::encode(digest.to_bytes()));
        list.push('"');
    }
    list.push(']');
    list
}

/// Strings as a JSON array.
pub(super) fn text_list<T: AsRef<str>>(texts: &[T]) -> String {
    serde_json::Value::from_iter(texts.iter().map(AsRef::as_ref)).to_string()
}

/// Reads back one element of [`digest_list`].
pub(super) fn listed_digest(hex: &str) -> Result<Digest> {
    digest(&hex::decode(hex).map_err(corrupt("digest"))?)
}

pub(super) async fn repository_id(
    connection: &mut SqliteConnection,
    repository: &RepoName,
) -> Result<Option<i64>> {
    sqlx::query_scalar("SELECT id FROM repositories WHERE name = $1 AND deleted_at IS NULL")
        .bind(repository.as_str())
        .fetch_optional(connection)
        .await
        .during("finding a repository")
}

/// Finds a repository or makes it.
pub(super) async fn ensure_repository(
    connection: &mut SqliteConnection,
    repository: &RepoName,
) -> Result<i64> {
    if let Some(id) = repository_id(connection, repository).await? {
        return Ok(id);
    }
    sqlx::query_scalar("INSERT INTO repositories (name) VALUES ($1) RETURNING id")
        .bind(repository.as_str())
        .fetch_one(connection)
        .await
        .during("making a repository")
}
