//! The trash: putting manifests in, listing it, bringing back what is in it.

use async_trait::async_trait;
use oci::{Digest, RepoName, Tag};
use sqlx::sqlite::SqliteConnection;

use super::rows::{During, corrupt, digest as read_digest, repository_id, size};
use super::writer::Durability::Durable;
use super::{Sqlite, Times, now, tags};
use crate::config::TagPattern;
use crate::metadata::collection::{
    DeletedTags, Trash, TrashPage, TrashedManifest, TrashedTag, Undelete, UndeleteOutcome, sql,
};
use crate::metadata::{Change, DeleteOutcome, Result};

#[async_trait]
impl Trash for Sqlite {
    async fn list_trash(&self, repository: &RepoName, after: (i64, i64), limit: u32) -> Result<TrashPage> {
        let Some(id) = self.read_repository_id(repository).await? else {
            return Ok(TrashPage::default());
        };
        type Row = (i64, Vec<u8>, String, i64, i64, Option<String>, Option<i64>);
        let rows: Vec<Row> = sqlx::query_as(sql::TRASHED)
            .bind(id)
            .bind(after.0)
            .bind(after.1)
            .bind(limit)
            .fetch_all(&self.readers)
            .await
            .during("listing the trash")?;
        let next = rows.last().map(|row| (row.4, row.0));
        let next = next.filter(|_| rows.len() >= limit as usize);
        let manifest = |(_, stored, media_type, bytes, deleted_at, by, until): Row| {
            Ok(TrashedManifest {
                digest: read_digest(&stored)?,
                media_type,
                size: size(bytes),
                deleted_at,
                deleted_by: by.unwrap_or_default(),
                until,
            })
        };
        Ok(TrashPage {
            manifests: rows.into_iter().map(manifest).collect::<Result<_>>()?,
            next,
        })
    }

    async fn list_deleted_tags(
        &self,
        repository: &RepoName,
        after: (i64, i64),
        limit: u32,
    ) -> Result<DeletedTags> {
        let Some(id) = self.read_repository_id(repository).await? else {
            return Ok(DeletedTags::default());
        };
        type Row = (i64, String, Vec<u8>, i64, String, Option<i64>);
        let rows: Vec<Row> = sqlx::query_as(sql::DELETED_TAGS)
            .bind(id)
            .bind(after.0)
            .bind(after.1)
            .bind(limit)
            .fetch_all(&self.readers)
            .await
            .during("listing deleted tags")?;
        let next = rows.last().map(|row| (row.3, row.0));
        let next = next.filter(|_| rows.len() >= limit as usize);
        let tag = |(_, name, stored, deleted_at, deleted_by, until): Row| {
            Ok(TrashedTag {
                tag: name.parse().map_err(corrupt("tag"))?,
                digest: read_digest(&stored)?,
                deleted_at,
                deleted_by,
                until,
            })
        };
        Ok(DeletedTags {
            tags: rows.into_iter().map(tag).collect::<Result<_>>()?,
            next,
        })
    }

    async fn undelete(&self, undelete: Undelete) -> Result<UndeleteOutcome> {
        let times = self.times;
        self.writer
            .run(Durable, move |connection| {
                Box::pin(restore(connection, undelete, times))
            })
            .await
    }
}

async fn restore(
    connection: &mut SqliteConnection,
    undelete: Undelete,
    times: Times,
) -> Result<UndeleteOutcome> {
    let Some(repository) = repository_id(connection, &undelete.repository).await? else {
        return Ok(UndeleteOutcome::Unknown);
    };
    let digest = match (undelete.digest, &undelete.tag) {
        (Some(digest), _) => Some(digest),
        (None, Some(tag)) => last_deleted(connection, repository, tag).await?,
        (None, None) => None,
    };
    let Some(digest) = digest else {
        return Ok(UndeleteOutcome::Unknown);
    };
    let found: Option<(i64, Option<i64>)> =
        sqlx::query_as("SELECT id, deleted_at FROM manifests WHERE repository_id = $1 AND digest = $2")
            .bind(repository)
            .bind(digest.to_bytes())
            .fetch_optional(&mut *connection)
            .await
            .during("finding a manifest to restore")?;
    let Some((manifest, deleted_at)) = found else {
        return Ok(UndeleteOutcome::Unknown);
    };
    let wanted = match (&undelete.tag, deleted_at) {
        (Some(tag), _) => vec![tag.clone()],
        (None, Some(at)) => deleted_with(connection, repository, &digest, at).await?,
        // It was never deleted.
        (None, None) => return Ok(UndeleteOutcome::Unknown),
    };
    let mut tags = Vec::with_capacity(wanted.len());
    for tag in wanted {
        match tags::find(connection, repository, &tag).await? {
            Some((id, _)) if id == manifest => {}
            Some((_, taken)) if !undelete.force => {
                let digest = read_digest(&taken)?;
                return Ok(UndeleteOutcome::Taken { tag, digest });
            }
            _ => tags.push(tag),
        }
    }
    let manifests = restore_closure(connection, repository, manifest, now() + times.undelete_window).await?;
    for tag in &tags {
        tags::set(
            connection,
            repository,
            tag,
            manifest,
            &digest,
            &undelete.actor,
            times,
        )
        .await?;
    }
    tell_restored(
        connection,
        repository,
        (manifest, &digest),
        &manifests,
        &tags,
        &undelete.actor,
    )
    .await?;
    Ok(UndeleteOutcome::Restored { manifests, tags })
}

/// To the outbox, what was restored is pushed: what the index lists first, then the manifest itself with its tags.
async fn tell_restored(
    connection: &mut SqliteConnection,
    repository: i64,
    (manifest, own): (i64, &Digest),
    others: &[Digest],
    tags: &[Tag],
    actor: &str,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO outbox (kind, repository, manifest, payload, at)
             SELECT 'push', r.name, m.digest, json_object('change', 'push', 'digest', x.digest,
                 'media_type', m.media_type, 'size', m.size, 'tags', json(x.tags), 'actor', $5), $6
             FROM (SELECT value ->> 0 AS hex, value ->> 1 AS digest, '[]' AS tags, 0 AS last FROM json_each($3)
                 UNION ALL SELECT hex(digest), $7, $4, 1 FROM manifests WHERE id = $2) x
             JOIN manifests m ON m.repository_id = $1 AND m.digest = unhex(x.hex)
             JOIN repositories r ON r.id = $1
             ORDER BY x.last",
    )
    .bind(repository)
    .bind(manifest)
    .bind(
        serde_json::Value::from_iter(
            others
                .iter()
                .map(|digest| serde_json::json!([hex::encode(digest.to_bytes()), digest])),
        )
        .to_string(),
    )
    .bind(super::rows::text_list(&tags.iter().map(Tag::as_str).collect::<Vec<_>>()))
    .bind(actor)
    .bind(now())
    .bind(own.to_string())
    .execute(connection)
    .await
    .during("telling of what was restored")?;
    Ok(())
}

/// What a tag named when it was deleted last.
async fn last_deleted(
    connection: &mut SqliteConnection,
    repository: i64,
    tag: &Tag,
) -> Result<Option<Digest>> {
    let stored: Option<Vec<u8>> = sqlx::query_scalar(sql::LAST_DELETED)
        .bind(repository)
        .bind(tag.as_str())
        .fetch_optional(connection)
        .await
        .during("finding a deleted tag")?;
    stored.map(|stored| read_digest(&stored)).transpose()
}

/// The tags that went with a manifest.
async fn deleted_with(
    connection: &mut SqliteConnection,
    repository: i64,
    digest: &Digest,
    at: i64,
) -> Result<Vec<Tag>> {
    let names: Vec<String> = sqlx::query_scalar(sql::DELETED_WITH)
        .bind(repository)
        .bind(at)
        .bind(digest.to_bytes())
        .fetch_all(connection)
        .await
        .during("finding the tags of a deleted manifest")?;
    names
        .iter()
        .map(|name| name.parse().map_err(corrupt("tag")))
        .collect()
}

/// Takes a manifest and what it lists out of the trash; returns those that were in it.
async fn restore_closure(
    connection: &mut SqliteConnection,
    repository: i64,
    manifest: i64,
    review_at: i64,
) -> Result<Vec<Digest>> {
    let closure: Vec<(i64, Vec<u8>)> = sqlx::query_as(sql::TRASHED_CLOSURE)
        .bind(repository)
        .bind(manifest)
        .fetch_all(&mut *connection)
        .await
        .during("finding what a deleted index lists")?;
    let mut restored = Vec::new();
    for (id, stored) in closure {
        let updated = sqlx::query(sql::RESTORE)
            .bind(id)
            .bind(review_at)
            .execute(&mut *connection)
            .await
            .during("taking a manifest out of the trash")?;
        if updated.rows_affected() == 0 {
            continue;
        }
        for statement in [sql::COUNT_UP, sql::UNHIDE] {
            sqlx::query(statement)
                .bind(repository)
                .bind(id)
                .execute(&mut *connection)
                .await
                .during("restoring what a manifest needs")?;
        }
        restored.push(read_digest(&stored)?);
    }
    Ok(restored)
}

/// `$1` the repository, `$2` the manifest, `$3` its digest, `$4` who, `$5` when, `$6` when it is reviewed, `$7` the
/// change. Its tags go with it.
pub(super) const PUT_IN: &str = "INSERT INTO tag_events (repository_id, name, previous, action, actor, at)
         SELECT repository_id, name, $3, 'delete', $4, $5 FROM tags WHERE repository_id = $1 AND manifest_id = $2;
     DELETE FROM tags WHERE repository_id = $1 AND manifest_id = $2;
     UPDATE manifests SET deleted_at = $5, deleted_by = $4, review_at = $6, review_reason = 'deleted' WHERE id = $2;
     UPDATE repositories SET manifest_count = manifest_count - 1 WHERE id = $1;
     INSERT INTO outbox (kind, repository, manifest, payload, at)
         SELECT 'delete', name, $3, $7, $5 FROM repositories WHERE id = $1";

pub(super) async fn put_in(
    connection: &mut SqliteConnection,
    repository: &RepoName,
    digest: &Digest,
    immutable: &[TagPattern],
    actor: &str,
    times: Times,
) -> Result<DeleteOutcome> {
    let Some(repository) = repository_id(connection, repository).await? else {
        return Ok(DeleteOutcome::Unknown);
    };
    let id: Option<i64> = sqlx::query_scalar(
        "SELECT id FROM manifests WHERE repository_id = $1 AND digest = $2 AND deleted_at IS NULL",
    )
    .bind(repository)
    .bind(digest.to_bytes())
    .fetch_optional(&mut *connection)
    .await
    .during("finding a manifest to delete")?;
    let Some(id) = id else {
        return Ok(DeleteOutcome::Unknown);
    };
    let index: Option<Vec<u8>> = sqlx::query_scalar(
        "SELECT m.digest FROM manifest_children c JOIN manifests m ON m.id = c.parent_id
         WHERE c.repository_id = $1 AND c.child_digest = $2 AND m.deleted_at IS NULL LIMIT 1",
    )
    .bind(repository)
    .bind(digest.to_bytes())
    .fetch_optional(&mut *connection)
    .await
    .during("finding a manifest's indexes")?;
    if let Some(index) = index {
        return Ok(DeleteOutcome::ReferencedBy(read_digest(&index)?));
    }
    if !immutable.is_empty()
        && let Some(tag) = tags::first_matching(connection, repository, id, immutable).await?
    {
        return Ok(DeleteOutcome::Tagged(tag));
    }
    let change = Change::Delete {
        digest: *digest,
        actor: actor.to_owned(),
    };
    let now = now();
    sqlx::query(PUT_IN)
        .bind(repository)
        .bind(id)
        .bind(digest.to_bytes())
        .bind(actor)
        .bind(now)
        .bind(now + times.undelete_window)
        .bind(change.to_json())
        .execute(connection)
        .await
        .during("moving a manifest to the trash")?;
    Ok(DeleteOutcome::Deleted)
}
