//! What is known about a manifest or a link, and pages of that.

use oci::RepoName;
use sqlx::sqlite::{Sqlite as Database, SqliteExecutor};

use super::rows::During;
use super::{Sqlite, Times, now};
use crate::metadata::Result;
use crate::metadata::collection::facts::{FoundLink, FoundManifest, LinkRow, ManifestRow};
use crate::metadata::collection::{Cursor, Explain, ExplainPage, Kind, sql};

pub(super) async fn manifest<'e>(
    connection: impl SqliteExecutor<'e, Database = Database>,
    id: i64,
    times: Times,
) -> Result<Option<FoundManifest>> {
    let now = now();
    let row: Option<ManifestRow> = sqlx::query_as(sql::MANIFEST_FACTS)
        .bind(id)
        .bind(now)
        .fetch_optional(connection)
        .await
        .during("finding who needs a manifest")?;
    row.map(|row| FoundManifest::read(row, now, times)).transpose()
}

pub(super) async fn link<'e>(
    connection: impl SqliteExecutor<'e, Database = Database>,
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

impl Sqlite {
    pub(super) async fn explain_page(&self, question: Explain) -> Result<ExplainPage> {
        match question {
            Explain::Reviews { after, limit } => {
                self.explain_rows(self.reviewed_rows(after, limit).await?, limit)
                    .await
            }
            Explain::Repository {
                repository,
                after,
                limit,
            } => {
                let rows = self.repository_rows(&repository, after, limit).await?;
                self.explain_rows(rows, limit).await
            }
            Explain::One { repository, digest } => {
                let rows = self.rows_of_digest(&repository, &digest).await?;
                let limit = u32::MAX;
                self.explain_rows(rows, limit).await
            }
        }
    }

    async fn explain_rows(&self, rows: Vec<Cursor>, limit: u32) -> Result<ExplainPage> {
        let next = rows.last().copied().filter(|_| rows.len() >= limit as usize);
        let mut items = Vec::with_capacity(rows.len());
        for row in rows {
            // What went meanwhile is no longer there to be explained.
            let item = match row.kind {
                Kind::Manifest => manifest(&self.readers, row.row, self.times)
                    .await?
                    .map(|found| found.item),
                Kind::Blob => link(&self.readers, row.repository, row.row)
                    .await?
                    .map(|found| found.item),
            };
            items.extend(item);
        }
        Ok(ExplainPage { items, next })
    }

    /// Manifests first, then links.
    async fn reviewed_rows(&self, after: Option<Cursor>, limit: u32) -> Result<Vec<Cursor>> {
        let mut rows = Vec::new();
        let start = after.unwrap_or(Cursor {
            kind: Kind::Manifest,
            at: i64::MIN,
            repository: 0,
            row: 0,
        });
        if start.kind == Kind::Manifest {
            let found: Vec<(i64, i64)> = sqlx::query_as(sql::REVIEWED_MANIFESTS)
                .bind(start.at)
                .bind(start.row)
                .bind(limit)
                .fetch_all(&self.readers)
                .await
                .during("listing manifests to review")?;
            rows.extend(found.into_iter().map(|(at, row)| Cursor {
                kind: Kind::Manifest,
                at,
                repository: 0,
                row,
            }));
        }
        let room = limit.saturating_sub(u32::try_from(rows.len()).unwrap_or(u32::MAX));
        if room == 0 {
            return Ok(rows);
        }
        let (at, repository, blob) = match start.kind {
            Kind::Manifest => (i64::MIN, 0, 0),
            Kind::Blob => (start.at, start.repository, start.row),
        };
        let found: Vec<(i64, i64, i64)> = sqlx::query_as(sql::REVIEWED_LINKS)
            .bind(at)
            .bind(repository)
            .bind(blob)
            .bind(room)
            .fetch_all(&self.readers)
            .await
            .during("listing links to review")?;
        rows.extend(found.into_iter().map(|(at, repository, row)| Cursor {
            kind: Kind::Blob,
            at,
            repository,
            row,
        }));
        Ok(rows)
    }

    /// Manifests first, then links.
    async fn repository_rows(
        &self,
        name: &RepoName,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Vec<Cursor>> {
        let Some(repository) = self.read_repository_id(name).await? else {
            return Ok(Vec::new());
        };
        let row_of = |kind| {
            move |row| Cursor {
                kind,
                at: 0,
                repository,
                row,
            }
        };
        let (manifest, blob) = match after {
            None => (Some(0), 0),
            Some(cursor) if cursor.kind == Kind::Manifest => (Some(cursor.row), 0),
            Some(cursor) => (None, cursor.row),
        };
        let mut rows = Vec::new();
        if let Some(manifest) = manifest {
            let found = self.ids(sql::MANIFESTS_OF, repository, manifest, limit).await?;
            rows.extend(found.into_iter().map(row_of(Kind::Manifest)));
        }
        let room = limit.saturating_sub(u32::try_from(rows.len()).unwrap_or(u32::MAX));
        let found = self.ids(sql::LINKS_OF, repository, blob, room).await?;
        rows.extend(found.into_iter().map(row_of(Kind::Blob)));
        Ok(rows)
    }

    async fn ids(
        &self,
        statement: &'static str,
        repository: i64,
        after: i64,
        limit: u32,
    ) -> Result<Vec<i64>> {
        sqlx::query_scalar(statement)
            .bind(repository)
            .bind(after)
            .bind(limit)
            .fetch_all(&self.readers)
            .await
            .during("listing what a repository has")
    }

    async fn rows_of_digest(&self, name: &RepoName, digest: &oci::Digest) -> Result<Vec<Cursor>> {
        let Some(repository) = self.read_repository_id(name).await? else {
            return Ok(Vec::new());
        };
        let found: (Option<i64>, Option<i64>) = sqlx::query_as(sql::ROWS_OF_DIGEST)
            .bind(repository)
            .bind(digest.to_bytes())
            .fetch_one(&self.readers)
            .await
            .during("finding what has a digest")?;
        let (manifest, blob) = found;
        let row_of = |kind, row| Cursor {
            kind,
            at: 0,
            repository,
            row,
        };
        Ok(manifest
            .map(|row| row_of(Kind::Manifest, row))
            .into_iter()
            .chain(blob.map(|row| row_of(Kind::Blob, row)))
            .collect())
    }
}
