//! Pages, each one range of an index.

use async_trait::async_trait;
use oci::{RepoName, Tag};

use super::Sqlite;
use super::rows::{During, corrupt, digest, repository};
use crate::metadata::{Lists, Referrer, ReferrersQuery, Result};

/// One row, because every row is a message from SQLite's thread.
const TAGS: &str = "SELECT (SELECT json_group_array(name) FROM
         (SELECT name FROM tags WHERE repository_id = r.id AND name > $2 ORDER BY name LIMIT $3))
     FROM repositories r WHERE r.name = $1 AND r.deleted_at IS NULL";

const REPOSITORIES: &str = "SELECT name FROM repositories
     WHERE manifest_count > 0 AND deleted_at IS NULL AND name > $1 ORDER BY name LIMIT $2";

const REFERRERS: &str = "SELECT artifact_type, digest, descriptor FROM manifests
     WHERE repository_id = $1 AND subject = $2 AND deleted_at IS NULL AND (artifact_type, digest) > ($3, $4)
     ORDER BY artifact_type, digest LIMIT $5";

const REFERRERS_OF_TYPE: &str = "SELECT artifact_type, digest, descriptor FROM manifests
     WHERE repository_id = $1 AND subject = $2 AND deleted_at IS NULL AND artifact_type = $3 AND digest > $4
     ORDER BY digest LIMIT $5";

#[async_trait]
impl Lists for Sqlite {
    async fn list_tags(
        &self,
        repository: &RepoName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Option<Vec<Tag>>> {
        let list: Option<String> = sqlx::query_scalar(TAGS)
            .bind(repository.as_str())
            .bind(after.unwrap_or_default())
            .bind(limit)
            .fetch_optional(&self.readers)
            .await
            .during("listing tags")?;
        let Some(list) = list else { return Ok(None) };
        serde_json::from_str(&list).map(Some).map_err(corrupt("tag"))
    }

    async fn list_repositories(&self, after: Option<&str>, limit: u32) -> Result<Vec<RepoName>> {
        let names: Vec<String> = sqlx::query_scalar(REPOSITORIES)
            .bind(after.unwrap_or_default())
            .bind(limit)
            .fetch_all(&self.readers)
            .await
            .during("listing repositories")?;
        names.iter().map(|name| repository(name)).collect()
    }

    async fn list_referrers(&self, query: ReferrersQuery) -> Result<Vec<Referrer>> {
        let Some(id) = self.read_repository_id(&query.repository).await? else {
            return Ok(Vec::new());
        };
        let (after_type, after_digest) = match &query.after {
            Some((artifact_type, digest)) => (artifact_type.as_str(), digest.to_bytes()),
            None => ("", Vec::new()),
        };
        let (sql, wanted) = match &query.artifact_type {
            Some(wanted) => (REFERRERS_OF_TYPE, wanted.as_str()),
            None => (REFERRERS, after_type),
        };
        let rows: Vec<(String, Vec<u8>, Option<String>)> = sqlx::query_as(sql)
            .bind(id)
            .bind(query.subject.to_bytes())
            .bind(wanted)
            .bind(after_digest)
            .bind(query.limit)
            .fetch_all(&self.readers)
            .await
            .during("listing referrers")?;
        let referrer = |(artifact_type, stored, descriptor): (String, Vec<u8>, Option<String>)| {
            Ok(Referrer {
                artifact_type,
                digest: digest(&stored)?,
                descriptor: descriptor.unwrap_or_default(),
            })
        };
        rows.into_iter().map(referrer).collect()
    }
}

impl Sqlite {
    pub(super) async fn read_repository_id(&self, repository: &RepoName) -> Result<Option<i64>> {
        sqlx::query_scalar("SELECT id FROM repositories WHERE name = $1 AND deleted_at IS NULL")
            .bind(repository.as_str())
            .fetch_optional(&self.readers)
            .await
            .during("finding a repository")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;

    /// The cost of a page may not depend on how much there is.
    #[tokio::test]
    async fn no_list_scans_or_sorts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registry.db");
        let store = Sqlite::open(&path, &Limits::default()).await.unwrap();
        for (sql, index) in [
            (TAGS, "SEARCH tags USING PRIMARY KEY (repository_id=? AND name>?)"),
            (REPOSITORIES, "repositories_in_catalog (name>?)"),
            (
                REFERRERS,
                "manifests_as_referrers (repository_id=? AND subject=? AND (artifact_type,digest)>(?,?))",
            ),
            (
                REFERRERS_OF_TYPE,
                "manifests_as_referrers (repository_id=? AND subject=? AND artifact_type=? AND digest>?)",
            ),
        ] {
            let plan: Vec<(i64, i64, i64, String)> =
                sqlx::query_as(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")))
                    .fetch_all(&store.readers)
                    .await
                    .unwrap();
            let steps: Vec<&str> = plan.iter().map(|(.., detail)| detail.as_str()).collect();
            // Reading back a page that was cut already is no scan of a table.
            let bad = |step: &&str| {
                step.contains("TEMP B-TREE") || (step.starts_with("SCAN") && !step.contains("(subquery"))
            };
            assert!(!steps.iter().any(bad), "{sql}: {steps:?}");
            assert!(steps.iter().any(|step| step.contains(index)), "{sql}: {steps:?}");
        }
    }
}
