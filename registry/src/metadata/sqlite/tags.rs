//! Setting and deleting tags inside a transaction, with their history.

use oci::{Digest, RepoName, Tag};
use sqlx::sqlite::SqliteConnection;

use super::rows::{During, corrupt, digest as read_digest, repository_id};
use super::{Times, now};
use crate::config::TagPattern;
use crate::metadata::{Change, Result};

/// Points a tag at a manifest. One that it pointed at before is reviewed later, since nothing may hold it now.
pub(super) async fn set(
    connection: &mut SqliteConnection,
    repository: i64,
    tag: &Tag,
    manifest: i64,
    digest: &Digest,
    actor: &str,
    times: Times,
) -> Result<()> {
    let previous: Option<(i64, Vec<u8>)> = find(connection, repository, tag).await?;
    let now = now();
    if let Some((old, _)) = &previous
        && *old != manifest
    {
        review_untagged(connection, *old, now, times).await?;
    }
    sqlx::query(
        "INSERT INTO tags (repository_id, name, manifest_id, updated_at, updated_by) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT DO UPDATE SET
                 manifest_id = excluded.manifest_id, updated_at = excluded.updated_at,
                 updated_by = excluded.updated_by;
         INSERT INTO tag_events (repository_id, name, digest, previous, action, actor, at)
             VALUES ($1, $2, $6, $7, 'set', $5, $4)",
    )
    .bind(repository)
    .bind(tag.as_str())
    .bind(manifest)
    .bind(now)
    .bind(actor)
    .bind(digest.to_bytes())
    .bind(previous.map(|(_, digest)| digest))
    .execute(connection)
    .await
    .during("setting a tag")?;
    Ok(())
}

/// False: there is no such tag.
pub(super) async fn delete(
    connection: &mut SqliteConnection,
    repository: &RepoName,
    tag: &Tag,
    actor: &str,
    times: Times,
) -> Result<bool> {
    let Some(repository) = repository_id(connection, repository).await? else {
        return Ok(false);
    };
    let Some((manifest, digest)) = find(connection, repository, tag).await? else {
        return Ok(false);
    };
    let now = now();
    let change = Change::Untag {
        tag: tag.clone(),
        digest: read_digest(&digest)?,
        actor: actor.to_owned(),
    };
    sqlx::query(
        "DELETE FROM tags WHERE repository_id = $1 AND name = $2;
         INSERT INTO tag_events (repository_id, name, previous, action, actor, at)
             VALUES ($1, $2, $3, 'delete', $4, $5);
         INSERT INTO outbox (kind, repository, manifest, payload, at)
             SELECT 'untag', name, $3, $6, $5 FROM repositories WHERE id = $1",
    )
    .bind(repository)
    .bind(tag.as_str())
    .bind(digest)
    .bind(actor)
    .bind(now)
    .bind(change.to_json())
    .execute(&mut *connection)
    .await
    .during("deleting a tag")?;
    review_untagged(connection, manifest, now, times).await?;
    Ok(true)
}

pub(super) async fn find(
    connection: &mut SqliteConnection,
    repository: i64,
    tag: &Tag,
) -> Result<Option<(i64, Vec<u8>)>> {
    sqlx::query_as(
        "SELECT t.manifest_id, m.digest FROM tags t JOIN manifests m ON m.id = t.manifest_id
         WHERE t.repository_id = $1 AND t.name = $2",
    )
    .bind(repository)
    .bind(tag.as_str())
    .fetch_optional(connection)
    .await
    .during("finding a tag")
}

async fn review_untagged(
    connection: &mut SqliteConnection,
    manifest: i64,
    now: i64,
    times: Times,
) -> Result<()> {
    sqlx::query(
        "UPDATE manifests SET untagged_at = $2, review_at = max(coalesce(review_at, 0), $3),
             review_reason = 'untagged'
         WHERE id = $1",
    )
    .bind(manifest)
    .bind(now)
    .bind(now + times.undelete_window)
    .execute(connection)
    .await
    .during("enqueueing an untagged manifest")?;
    Ok(())
}

/// The first of `tags` that names something else than `digest`.
pub(super) async fn taken(
    connection: &mut SqliteConnection,
    repository: i64,
    tags: &[Tag],
    digest: &Digest,
) -> Result<Option<Tag>> {
    for tag in tags {
        let found = find(connection, repository, tag).await?;
        if found.is_some_and(|(_, named)| named != digest.to_bytes()) {
            return Ok(Some(tag.clone()));
        }
    }
    Ok(None)
}

/// A tag of the manifest that matches one of the patterns.
pub(super) async fn first_matching(
    connection: &mut SqliteConnection,
    repository: i64,
    manifest: i64,
    patterns: &[TagPattern],
) -> Result<Option<Tag>> {
    let names: Vec<String> =
        sqlx::query_scalar("SELECT name FROM tags WHERE repository_id = $1 AND manifest_id = $2")
            .bind(repository)
            .bind(manifest)
            .fetch_all(connection)
            .await
            .during("finding a manifest's tags")?;
    let matching = names
        .iter()
        .find(|name| patterns.iter().any(|pattern| pattern.matches(name)));
    matching
        .map(|name| name.parse().map_err(corrupt("tag")))
        .transpose()
}
