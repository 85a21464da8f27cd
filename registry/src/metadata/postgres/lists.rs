//! Pages, each one range of an index.

use async_trait::async_trait;
use oci::{RepoName, Tag};

use super::Postgres;
use super::rows::{During, corrupt, digest, repository};
use crate::metadata::{Lists, Referrer, ReferrersQuery, Result};

pub(super) const TAGS: &str = "SELECT ARRAY(
         SELECT name FROM tags WHERE repository_id = r.id AND name > $2 ORDER BY name LIMIT $3)
     FROM repositories r WHERE r.name = $1 AND r.deleted_at IS NULL";

pub(super) const REPOSITORIES: &str = "SELECT name FROM repositories
     WHERE manifest_count > 0 AND deleted_at IS NULL AND name > $1 ORDER BY name LIMIT $2";

pub(super) const REFERRERS: &str = "SELECT m.* FROM repositories r CROSS JOIN LATERAL (
         SELECT artifact_type, digest, descriptor FROM manifests
         WHERE repository_id = r.id AND subject = $2 AND deleted_at IS NULL AND (artifact_type, digest) > ($3, $4)
         ORDER BY artifact_type, digest LIMIT $5) m
     WHERE r.name = $1 AND r.deleted_at IS NULL";

pub(super) const REFERRERS_OF_TYPE: &str = "SELECT m.* FROM repositories r CROSS JOIN LATERAL (
         SELECT artifact_type, digest, descriptor FROM manifests
         WHERE repository_id = r.id AND subject = $2 AND deleted_at IS NULL AND artifact_type = $3 AND digest > $4
         ORDER BY artifact_type, digest LIMIT $5) m
     WHERE r.name = $1 AND r.deleted_at IS NULL";

#[async_trait]
impl Lists for Postgres {
    async fn list_tags(
        &self,
        repository: &RepoName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Option<Vec<Tag>>> {
        let names: Option<Vec<String>> = self
            .retrying(|| async {
                sqlx::query_scalar(TAGS)
                    .bind(repository.as_str())
                    .bind(after.unwrap_or_default())
                    .bind(i64::from(limit))
                    .fetch_optional(&self.pool())
                    .await
                    .during("listing tags")
            })
            .await?;
        let tag = |name: String| name.parse().map_err(corrupt("tag"));
        names
            .map(|names| names.into_iter().map(tag).collect())
            .transpose()
    }

    async fn list_repositories(&self, after: Option<&str>, limit: u32) -> Result<Vec<RepoName>> {
        let names: Vec<String> = self
            .retrying(|| async {
                sqlx::query_scalar(REPOSITORIES)
                    .bind(after.unwrap_or_default())
                    .bind(i64::from(limit))
                    .fetch_all(&self.pool())
                    .await
                    .during("listing repositories")
            })
            .await?;
        names.iter().map(|name| repository(name)).collect()
    }

    async fn list_referrers(&self, query: ReferrersQuery) -> Result<Vec<Referrer>> {
        let (after_type, after_digest) = match &query.after {
            Some((artifact_type, digest)) => (artifact_type.as_str(), digest.to_bytes()),
            None => ("", Vec::new()),
        };
        let (sql, wanted) = match &query.artifact_type {
            Some(wanted) => (REFERRERS_OF_TYPE, wanted.as_str()),
            None => (REFERRERS, after_type),
        };
        let rows: Vec<(String, Vec<u8>, Option<String>)> = self
            .retrying(|| async {
                sqlx::query_as(sql)
                    .bind(query.repository.as_str())
                    .bind(query.subject.to_bytes())
                    .bind(wanted)
                    .bind(&after_digest)
                    .bind(i64::from(query.limit))
                    .fetch_all(&self.pool())
                    .await
                    .during("listing referrers")
            })
            .await?;
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
