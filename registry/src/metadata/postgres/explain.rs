//! What is known about a manifest or a link, and the rows that pages are made of.

use async_trait::async_trait;
use oci::{Digest, RepoName};
use sqlx::postgres::PgExecutor;

use super::Postgres;
use super::collection::now;
use super::rows::{During, repository_id};
use crate::metadata::Result;
use crate::metadata::collection::facts::{FoundLink, FoundManifest, LinkRow, ManifestRow};
use crate::metadata::collection::pages::Rows;
use crate::metadata::collection::{Cursor, Explained, Kind, sql};
use crate::metadata::values::Times;

pub(super) async fn manifest<'e>(
    connection: impl PgExecutor<'e>,
    id: i64,
    now: i64,
    times: Times,
) -> Result<Option<FoundManifest>> {
    let row: Option<ManifestRow> = sqlx::query_as(sql::MANIFEST_FACTS)
        .bind(id)
        .bind(now)
        .fetch_optional(connection)
        .await
        .during("finding who needs a manifest")?;
    row.map(|row| FoundManifest::read(row, now, times)).transpose()
}

pub(super) async fn link<'e>(
    connection: impl PgExecutor<'e>,
    repository_id: i64,
    blob: i64,
) -> Result<Option<FoundLink>> {
    let row: Option<LinkRow> = sqlx::query_as(sql::LINK_FACTS)
        .bind(repository_id)
        .bind(blob)
        .fetch_optional(connection)
        .await
        .during("finding who needs a blob")?;
    row.map(FoundLink::read).transpose()
}

#[async_trait]
impl Rows for Postgres {
    async fn repository_row(&self, name: &RepoName) -> Result<Option<i64>> {
        self.read_repository_id(name).await
    }

    async fn reviewed_manifests(&self, (at, row): (i64, i64), limit: u32) -> Result<Vec<(i64, i64)>> {
        sqlx::query_as(sql::REVIEWED_MANIFESTS)
            .bind(at)
            .bind(row)
            .bind(i64::from(limit))
            .fetch_all(&self.pool())
            .await
            .during("listing manifests to review")
    }

    async fn reviewed_links(
        &self,
        (at, repository, blob): (i64, i64, i64),
        limit: u32,
    ) -> Result<Vec<(i64, i64, i64)>> {
        sqlx::query_as(sql::REVIEWED_LINKS)
            .bind(at)
            .bind(repository)
            .bind(blob)
            .bind(i64::from(limit))
            .fetch_all(&self.pool())
            .await
            .during("listing links to review")
    }

    async fn rows_of(&self, kind: Kind, repository: i64, after: i64, limit: u32) -> Result<Vec<i64>> {
        let statement = match kind {
            Kind::Manifest => sql::MANIFESTS_OF,
            Kind::Blob => sql::LINKS_OF,
        };
        sqlx::query_scalar(statement)
            .bind(repository)
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(&self.pool())
            .await
            .during("listing what a repository has")
    }

    async fn rows_of_digest(&self, repository: i64, digest: &Digest) -> Result<(Option<i64>, Option<i64>)> {
        sqlx::query_as(sql::ROWS_OF_DIGEST)
            .bind(repository)
            .bind(digest.to_bytes())
            .fetch_one(&self.pool())
            .await
            .during("finding what has a digest")
    }

    async fn explain_row(&self, row: Cursor) -> Result<Option<Explained>> {
        Ok(match row.kind {
            Kind::Manifest => manifest(&self.pool(), row.row, now(&self.pool()).await?, self.times)
                .await?
                .map(|found| found.item),
            Kind::Blob => link(&self.pool(), row.repository, row.row)
                .await?
                .map(|found| found.item),
        })
    }
}

impl Postgres {
    pub(super) async fn read_repository_id(&self, name: &RepoName) -> Result<Option<i64>> {
        self.retrying(|| async {
            let mut connection = self.pool().acquire().await.during("finding a repository")?;
            repository_id(&mut connection, name).await
        })
        .await
    }
}
