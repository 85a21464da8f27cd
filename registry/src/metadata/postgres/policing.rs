//! What policies need.

use async_trait::async_trait;
use oci::RepoName;

use super::Durability::Async;
use super::rows::{During, corrupt, digest, lock_repository, repository_id, size};
use super::transaction::commit;
use super::{Postgres, tags};
use crate::metadata::collection::{TagAge, sql};
use crate::metadata::{Policing, Result};

#[async_trait]
impl Policing for Postgres {
    async fn usage_bytes(&self, repository: &RepoName) -> Result<u64> {
        let bytes: i64 = self
            .retrying(|| async {
                sqlx::query_scalar(sql::USAGE)
                    .bind(repository.as_str())
                    .fetch_one(&self.pool())
                    .await
                    .during("reading a repository's usage")
            })
            .await?;
        Ok(size(bytes))
    }

    async fn trash_bytes(&self, repository: &RepoName) -> Result<u64> {
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            let Some(id) = repository_id(&mut tx, repository).await? else {
                return Ok(0);
            };
            let (blobs, manifests): (i64, i64) = sqlx::query_as(sql::TRASH_BYTES)
                .bind(id)
                .fetch_one(&mut *tx)
                .await
                .during("reading the size of a repository's trash")?;
            Ok(size(blobs + manifests))
        })
        .await
    }

    async fn list_tag_ages(
        &self,
        repository: &RepoName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<TagAge>> {
        type Row = (String, Vec<u8>, i64, Option<i64>);
        let rows: Vec<Row> = self
            .retrying(|| async {
                let mut tx = self.begin(Async).await?;
                let Some(id) = repository_id(&mut tx, repository).await? else {
                    return Ok(Vec::new());
                };
                sqlx::query_as(sql::TAG_AGES)
                    .bind(id)
                    .bind(after.unwrap_or_default())
                    .bind(i64::from(limit))
                    .fetch_all(&mut *tx)
                    .await
                    .during("listing the ages of tags")
            })
            .await?;
        let age = |(name, stored, updated_at, pulled_at): Row| {
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
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            let Some(id) = lock_repository(&mut tx, repository).await? else {
                return Ok(false);
            };
            let unchanged: bool = sqlx::query_scalar(sql::TAG_UNCHANGED)
                .bind(id)
                .bind(tag.name.as_str())
                .bind(tag.digest.to_bytes())
                .bind(tag.updated_at)
                .fetch_one(&mut *tx)
                .await
                .during("looking at a tag again")?;
            if !unchanged {
                return Ok(false);
            }
            let deleted = tags::delete(&mut tx, repository, &tag.name, actor, self.times).await?;
            commit(tx).await?;
            Ok(deleted)
        })
        .await
    }
}
