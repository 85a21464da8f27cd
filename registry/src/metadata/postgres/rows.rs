//! Errors, and reading and writing values of our types.

use oci::{Digest, RepoName};
use sqlx::postgres::PgConnection;

use crate::metadata::{MetadataError, Result};

pub(super) use crate::metadata::values::{corrupt, digest, repository, size, stored_size};

pub(super) const COMMITTING: &str = "committing";

/// Names what was being done when a statement failed.
pub(super) trait During<T> {
    fn during(self, operation: &'static str) -> Result<T>;
}

impl<T> During<T> for Result<T, sqlx::Error> {
    fn during(self, operation: &'static str) -> Result<T> {
        self.map_err(|error| {
            let unavailable = is_lost(&error) || is_overloaded(&error);
            let source = Box::new(error);
            if unavailable {
                MetadataError::Unavailable { operation, source }
            } else {
                MetadataError::Database { operation, source }
            }
        })
    }
}

/// What to do about a failed transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It was in another one's way and is rolled back: again.
    Conflict,
    /// The server went away before the commit: again, as soon as it is back.
    Lost,
    Other,
}

pub(super) fn trouble(error: &MetadataError) -> Trouble {
    let (operation, source) = match error {
        MetadataError::Database { operation, source } | MetadataError::Unavailable { operation, source } => {
            (*operation, source)
        }
        _ => return Trouble::Other,
    };
    match source.downcast_ref::<sqlx::Error>() {
        // Deadlock, serialization failure; a link that the collector took between check and use.
        Some(error) if has_code(error, &["40P01", "40001", "23503"]) => Trouble::Conflict,
        Some(error) if operation != COMMITTING && is_lost(error) => Trouble::Lost,
        _ => Trouble::Other,
    }
}

/// The connection or the server is gone.
fn is_lost(error: &sqlx::Error) -> bool {
    // Class 08: connections; 57P01–57P03: the server stops, crashed, starts.
    matches!(error, sqlx::Error::Io(_))
        || has_code(
            error,
            &[
                "08000", "08001", "08003", "08004", "08006", "57P01", "57P02", "57P03",
            ],
        )
}

/// No free connection, a lock or a statement that took too long.
fn is_overloaded(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::PoolTimedOut) || has_code(error, &["53300", "55P03", "57014"])
}

fn has_code(error: &sqlx::Error, codes: &[&str]) -> bool {
    let sqlx::Error::Database(error) = error else {
        return false;
    };
    error.code().is_some_and(|code| codes.contains(&code.as_ref()))
}

/// Digests for `unnest`.
pub(super) fn digest_list<'a>(digests: impl IntoIterator<Item = &'a Digest>) -> Vec<Vec<u8>> {
    digests
        .into_iter()
        .map(|digest| digest.to_bytes().to_vec())
        .collect()
}

pub(super) async fn repository_id(
    connection: &mut PgConnection,
    repository: &RepoName,
) -> Result<Option<i64>> {
    sqlx::query_scalar("SELECT id FROM repositories WHERE name = $1 AND deleted_at IS NULL")
        .bind(repository.as_str())
        .fetch_optional(connection)
        .await
        .during("finding a repository")
}

/// Finds a repository and holds its mutex: whoever changes manifests or tags has it until the commit.
pub(super) async fn lock_repository(
    connection: &mut PgConnection,
    repository: &RepoName,
) -> Result<Option<i64>> {
    sqlx::query_scalar("SELECT id FROM repositories WHERE name = $1 AND deleted_at IS NULL FOR NO KEY UPDATE")
        .bind(repository.as_str())
        .fetch_optional(connection)
        .await
        .during("locking a repository")
}

/// Finds a repository or makes it. Does not take its mutex.
pub(super) async fn ensure_repository(connection: &mut PgConnection, repository: &RepoName) -> Result<i64> {
    loop {
        if let Some(id) = repository_id(connection, repository).await? {
            return Ok(id);
        }
        let made: Option<i64> = sqlx::query_scalar(
            "INSERT INTO repositories (name) VALUES ($1)
             ON CONFLICT (name) WHERE deleted_at IS NULL DO NOTHING RETURNING id",
        )
        .bind(repository.as_str())
        .fetch_optional(&mut *connection)
        .await
        .during("making a repository")?;
        // None: another one made it meanwhile.
        if let Some(id) = made {
            return Ok(id);
        }
    }
}
