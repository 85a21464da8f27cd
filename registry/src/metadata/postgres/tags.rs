//! Setting and deleting tags inside a transaction that holds the repository's mutex, with their history.

use oci::{Digest, RepoName, Tag};
use sqlx::postgres::PgConnection;

use super::outbox;
use super::rows::{During, corrupt, digest as read_digest, lock_repository};
use crate::config::TagPattern;
use crate::metadata::values::Times;
use crate::metadata::{Change, Result};

/// Tags of one manifest and who changes them.
pub(super) struct Set<'a> {
    pub(super) repository: i64,
    pub(super) manifest: i64,
    pub(super) digest: &'a Digest,
    pub(super) tags: &'a [Tag],
    pub(super) actor: &'a str,
}

impl Set<'_> {
    /// Points the tags at the manifest. Those that they pointed at before are reviewed later, since nothing may hold
    /// them now.
    pub(super) async fn run(&self, connection: &mut PgConnection, times: Times) -> Result<()> {
        if self.tags.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = self.tags.iter().map(Tag::as_str).collect();
        let previous: Vec<(String, i64, Vec<u8>)> = sqlx::query_as(PREVIOUS)
            .bind(self.repository)
            .bind(&names)
            .fetch_all(&mut *connection)
            .await
            .during("finding tags")?;
        let mut left: Vec<i64> = previous.iter().map(|(_, id, _)| *id).collect();
        left.retain(|id| *id != self.manifest);
        review_untagged(connection, left, times).await?;
        let (old_names, old_digests): (Vec<String>, Vec<Vec<u8>>) = previous
            .into_iter()
            .map(|(name, _, digest)| (name, digest))
            .unzip();
        sqlx::query(
            "WITH set AS (INSERT INTO tags (repository_id, name, manifest_id, updated_at, updated_by)
                 SELECT DISTINCT $1, q.name, $3, now_micros(), $4 FROM unnest($2::text[]) AS q (name)
                 ON CONFLICT (repository_id, name) DO UPDATE SET manifest_id = excluded.manifest_id,
                     updated_at = excluded.updated_at, updated_by = excluded.updated_by)
         INSERT INTO tag_events (repository_id, name, digest, previous, action, actor, at)
             SELECT $1, q.name, $5, p.digest, 'set', $4, now_micros() FROM unnest($2::text[]) AS q (name)
             LEFT JOIN unnest($6::text[], $7::bytea[]) AS p (name, digest) ON p.name = q.name",
        )
        .bind(self.repository)
        .bind(&names)
        .bind(self.manifest)
        .bind(self.actor)
        .bind(self.digest.to_bytes())
        .bind(old_names)
        .bind(old_digests)
        .execute(connection)
        .await
        .during("setting tags")?;
        Ok(())
    }

    /// Deletes every tag that the manifest has.
    pub(super) async fn delete_all(&self, connection: &mut PgConnection, at: i64) -> Result<()> {
        sqlx::query(
            "WITH gone AS (DELETE FROM tags WHERE repository_id = $1 AND manifest_id = $2 RETURNING name)
             INSERT INTO tag_events (repository_id, name, previous, action, actor, at)
                 SELECT $1, name, $3, 'delete', $4, $5 FROM gone",
        )
        .bind(self.repository)
        .bind(self.manifest)
        .bind(self.digest.to_bytes())
        .bind(self.actor)
        .bind(at)
        .execute(connection)
        .await
        .during("deleting a manifest's tags")?;
        Ok(())
    }
}

pub(super) const PREVIOUS: &str = "SELECT t.name, t.manifest_id, m.digest
     FROM unnest($2::text[]) AS q (name) CROSS JOIN LATERAL (
         SELECT name, manifest_id FROM tags WHERE repository_id = $1 AND name = q.name LIMIT 1) t
     JOIN manifests m ON m.id = t.manifest_id";

/// The manifest that a tag names now.
pub(super) async fn find(
    connection: &mut PgConnection,
    repository: i64,
    tag: &Tag,
) -> Result<Option<(i64, Vec<u8>)>> {
    let found: Option<(String, i64, Vec<u8>)> = sqlx::query_as(PREVIOUS)
        .bind(repository)
        .bind(&[tag.as_str()][..])
        .fetch_optional(connection)
        .await
        .during("finding a tag")?;
    Ok(found.map(|(_, manifest, digest)| (manifest, digest)))
}

/// False: there is no such tag.
pub(super) async fn delete(
    connection: &mut PgConnection,
    repository: &RepoName,
    tag: &Tag,
    actor: &str,
    times: Times,
) -> Result<bool> {
    let Some(repository) = lock_repository(connection, repository).await? else {
        return Ok(false);
    };
    let Some((manifest, digest)) = find(connection, repository, tag).await? else {
        return Ok(false);
    };
    review_untagged(connection, vec![manifest], times).await?;
    sqlx::query(
        "WITH gone AS (DELETE FROM tags WHERE repository_id = $1 AND name = $2)
         INSERT INTO tag_events (repository_id, name, previous, action, actor, at)
             VALUES ($1, $2, $3, 'delete', $4, now_micros())",
    )
    .bind(repository)
    .bind(tag.as_str())
    .bind(&digest)
    .bind(actor)
    .execute(&mut *connection)
    .await
    .during("deleting a tag")?;
    let change = Change::Untag {
        tag: tag.clone(),
        digest: read_digest(&digest)?,
        actor: actor.to_owned(),
    };
    outbox::tell(connection, repository, &change).await?;
    Ok(true)
}

async fn review_untagged(connection: &mut PgConnection, manifests: Vec<i64>, times: Times) -> Result<()> {
    if manifests.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE manifests SET untagged_at = now_micros(),
             review_at = greatest(coalesce(review_at, 0), now_micros() + $2), review_reason = 'untagged'
         WHERE id = ANY($1)",
    )
    .bind(manifests)
    .bind(times.undelete_window)
    .execute(connection)
    .await
    .during("enqueueing untagged manifests")?;
    Ok(())
}

/// The first of `tags` that names something else than `digest`.
pub(super) async fn taken(
    connection: &mut PgConnection,
    repository: i64,
    tags: &[Tag],
    digest: &Digest,
) -> Result<Option<Tag>> {
    if tags.is_empty() {
        return Ok(None);
    }
    let names: Vec<&str> = tags.iter().map(Tag::as_str).collect();
    let found: Vec<(String, i64, Vec<u8>)> = sqlx::query_as(PREVIOUS)
        .bind(repository)
        .bind(&names)
        .fetch_all(connection)
        .await
        .during("finding immutable tags")?;
    let wanted = digest.to_bytes();
    let elsewhere = |tag: &&Tag| {
        let mut found = found.iter();
        found.any(|(name, _, named)| name == tag.as_str() && named[..] != wanted[..])
    };
    Ok(tags.iter().find(elsewhere).cloned())
}

/// A tag of the manifest that matches one of the patterns.
pub(super) async fn first_matching(
    connection: &mut PgConnection,
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
