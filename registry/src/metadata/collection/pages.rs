//! Pages of what is explained, over the rows that each database lists.

use async_trait::async_trait;
use oci::{Digest, RepoName};

use super::{Cursor, Explain, ExplainPage, Explained, Kind};
use crate::metadata::Result;

/// What a database is asked to make pages.
#[async_trait]
pub(in crate::metadata) trait Rows: Sync {
    async fn repository_row(&self, name: &RepoName) -> Result<Option<i64>>;
    /// (review, manifest) after the one given.
    async fn reviewed_manifests(&self, after: (i64, i64), limit: u32) -> Result<Vec<(i64, i64)>>;
    /// (review, repository, blob) after the one given.
    async fn reviewed_links(&self, after: (i64, i64, i64), limit: u32) -> Result<Vec<(i64, i64, i64)>>;
    /// A repository's manifests or blobs after the one given.
    async fn rows_of(&self, kind: Kind, repository: i64, after: i64, limit: u32) -> Result<Vec<i64>>;
    /// The manifest and the blob that have a digest.
    async fn rows_of_digest(&self, repository: i64, digest: &Digest) -> Result<(Option<i64>, Option<i64>)>;
    /// None: it went meanwhile.
    async fn explain_row(&self, row: Cursor) -> Result<Option<Explained>>;
}

pub(in crate::metadata) async fn explain(rows: &impl Rows, question: Explain) -> Result<ExplainPage> {
    let (found, limit) = match question {
        Explain::Reviews { after, limit } => (reviewed(rows, after, limit).await?, limit),
        Explain::Repository {
            repository,
            after,
            limit,
        } => match rows.repository_row(&repository).await? {
            Some(id) => (within(rows, id, after, limit).await?, limit),
            None => (Vec::new(), limit),
        },
        Explain::One { repository, digest } => match rows.repository_row(&repository).await? {
            Some(id) => (with_digest(rows, id, &digest).await?, u32::MAX),
            None => (Vec::new(), u32::MAX),
        },
    };
    let next = found.last().copied().filter(|_| found.len() >= limit as usize);
    let mut items = Vec::with_capacity(found.len());
    for row in found {
        items.extend(rows.explain_row(row).await?);
    }
    Ok(ExplainPage { items, next })
}

/// Manifests first, then links.
async fn reviewed(rows: &impl Rows, after: Option<Cursor>, limit: u32) -> Result<Vec<Cursor>> {
    let mut found = Vec::new();
    let (manifest, link) = match after {
        None => (Some((i64::MIN, 0)), (i64::MIN, 0, 0)),
        Some(last) if last.kind == Kind::Manifest => (Some((last.at, last.row)), (i64::MIN, 0, 0)),
        Some(last) => (None, (last.at, last.repository, last.row)),
    };
    if let Some(manifest) = manifest {
        let manifests = rows.reviewed_manifests(manifest, limit).await?;
        found.extend(manifests.into_iter().map(|(at, row)| Cursor {
            kind: Kind::Manifest,
            at,
            repository: 0,
            row,
        }));
    }
    let room = room(&found, limit);
    if room > 0 {
        let links = rows.reviewed_links(link, room).await?;
        found.extend(links.into_iter().map(|(at, repository, row)| Cursor {
            kind: Kind::Blob,
            at,
            repository,
            row,
        }));
    }
    Ok(found)
}

/// Manifests first, then links.
async fn within(rows: &impl Rows, repository: i64, after: Option<Cursor>, limit: u32) -> Result<Vec<Cursor>> {
    let mut found = Vec::new();
    let (manifest, blob) = match after {
        None => (Some(0), 0),
        Some(last) if last.kind == Kind::Manifest => (Some(last.row), 0),
        Some(last) => (None, last.row),
    };
    if let Some(manifest) = manifest {
        let ids = rows.rows_of(Kind::Manifest, repository, manifest, limit).await?;
        found.extend(ids.into_iter().map(of(Kind::Manifest, repository)));
    }
    let room = room(&found, limit);
    if room > 0 {
        let ids = rows.rows_of(Kind::Blob, repository, blob, room).await?;
        found.extend(ids.into_iter().map(of(Kind::Blob, repository)));
    }
    Ok(found)
}

async fn with_digest(rows: &impl Rows, repository: i64, digest: &Digest) -> Result<Vec<Cursor>> {
    let (manifest, blob) = rows.rows_of_digest(repository, digest).await?;
    let manifest = manifest.map(of(Kind::Manifest, repository));
    let blob = blob.map(of(Kind::Blob, repository));
    Ok(manifest.into_iter().chain(blob).collect())
}

fn of(kind: Kind, repository: i64) -> impl Fn(i64) -> Cursor {
    move |row| Cursor {
        kind,
        at: 0,
        repository,
        row,
    }
}

fn room(found: &[Cursor], limit: u32) -> u32 {
    limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX))
}
