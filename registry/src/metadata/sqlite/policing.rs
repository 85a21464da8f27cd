//! What policies need.

use async_trait::async_trait;
use oci::RepoName;

use super::rows::{During, corrupt, digest, repository_id, size};
use super::writer::Durability::Async;
use super::{Sqlite, tags};
use crate::metadata::collection::{TagAge, sql};
use crate::metadata::{Policing, Result};

#[async_trait]
impl Policing for Sqlite {
    async fn usage_bytes(&self, repository: &RepoName) -> Result<u64> {
        let bytes: i64 = sqlx::query_scalar(sql::USAGE)
            .bind(repository.as_str())
            .fetch_one(&self.readers)
            .await
            .during("reading a repository's usage")?;
        Ok(size(bytes))
    }

    async fn trash_bytes(&self, repository: &RepoName) -> Result<u64> {
        let Some(id) = self.read_repository_id(repository).await? else {
            return Ok(0);
        };
        let (blobs, manifests): (i64, i64) = sqlx::query_as(sql::TRASH_BYTES)
            .bind(id)
            .fetch_one(&self.readers)
            .await
            .during("reading the size of a repository's trash")?;
        Ok(size(blobs + manifests))
    }

    async fn list_tag_ages(
        &self,
        repository: &RepoName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<TagAge>> {
        let Some(id) = self.read_repository_id(repository).await? else {
            return Ok(Vec::new());
        };
        let rows: Vec<(String, Vec<u8>, i64, Option<i64>)> = sqlx::query_as(sql::TAG_AGES)
            .bind(id)
            .bind(after.unwrap_or_default())
            .bind(limit)
            .fetch_all(&self.readers)
            .await
            .during("listing the ages of tags")?;
        let age = |(name, stored, updated_at, pulled_at): (String, Vec<u8>, i64, Option<i64>)| {
            Ok(TagAge {
                name: name.parse().map_err(corrupt("tag"))?,
                digest: digest(&stored)?,
                updated_at,
                pulled_at,
            })
        };
        rows.into_iter().map(age).collect()
    }

    async fn expire_tag(&self, repository: &RepoName, tag: &TagAge, actor: &str) -> Result<bool> {
        let (name, tag, actor) = (repository.clone(), tag.clone(), actor.to_owned());
        let times = self.times;
        self.writer
            .run_in_background(Async, move |connection| {
                Box::pin(async move {
                    let Some(id) = repository_id(connection, &name).await? else {
                        return Ok(false);
                    };
                    let unchanged: bool = sqlx::query_scalar(sql::TAG_UNCHANGED)
                        .bind(id)
                        .bind(tag.name.as_str())
                        .bind(tag.digest.to_bytes())
                        .bind(tag.updated_at)
                        .fetch_one(&mut *connection)
                        .await
                        .during("looking at a tag again")?;
                    if !unchanged {
                        return Ok(false);
                    }
                    tags::delete(connection, &name, &tag.name, &actor, times).await
                })
            })
            .await
    }
}
