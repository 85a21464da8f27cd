//! The trash: putting manifests in, listing it, bringing back what is in it.

use async_trait::async_trait;
use oci::{Digest, RepoName, Tag};
use sqlx::postgres::PgConnection;

use super::Durability::Durable;
use super::collection::now;
use super::rows::{During, corrupt, digest as read_digest, lock_repository, size};
use super::transaction::commit;
use super::{Postgres, manifests, outbox, tags};
use crate::config::TagPattern;
use crate::metadata::collection::{
    DeletedTags, Trash, TrashPage, TrashedManifest, TrashedTag, Undelete, UndeleteOutcome, sql,
};
use crate::metadata::values::Times;
use crate::metadata::{Change, DeleteOutcome, Origin, Result};

#[async_trait]
impl Trash for Postgres {
    async fn list_trash(&self, repository: &RepoName, after: (i64, i64), limit: u32) -> Result<TrashPage> {
        let Some(id) = self.read_repository_id(repository).await? else {
            return Ok(TrashPage::default());
        };
        type Row = (i64, Vec<u8>, String, i64, i64, Option<String>, Option<i64>);
        let rows: Vec<Row> = sqlx::query_as(sql::TRASHED)
            .bind(id)
            .bind(after.0)
            .bind(after.1)
            .bind(i64::from(limit))
            .fetch_all(&self.pool())
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
            .bind(i64::from(limit))
            .fetch_all(&self.pool())
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
        self.retrying(|| async {
            let mut tx = self.begin(Durable).await?;
            let outcome = restore(&mut tx, &undelete, self.times).await?;
            commit(tx).await?;
            Ok(outcome)
        })
        .await
    }
}

async fn restore(
    connection: &mut PgConnection,
    undelete: &Undelete,
    times: Times,
) -> Result<UndeleteOutcome> {
    let Some(repository) = lock_repository(connection, &undelete.repository).await? else {
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
    let review_at = now(&mut *connection).await? + times.undelete_window;
    let manifests = restore_closure(connection, repository, manifest, review_at).await?;
    let set = tags::Set {
        repository,
        manifest,
        digest: &digest,
        tags: &tags,
        actor: &undelete.actor,
    };
    set.run(connection, times).await?;
    tell_restored(
        connection,
        repository,
        &manifests,
        (&digest, &tags),
        &undelete.actor,
    )
    .await?;
    Ok(UndeleteOutcome::Restored { manifests, tags })
}

/// To the outbox, what was restored is pushed: what the index lists first, then the manifest itself with its tags.
async fn tell_restored(
    connection: &mut PgConnection,
    repository: i64,
    restored: &[Digest],
    (own, tags): (&Digest, &[Tag]),
    actor: &str,
) -> Result<()> {
    let others = restored.iter().filter(|digest| *digest != own);
    for digest in others.chain([own]) {
        let (media_type, bytes): (String, i64) =
            sqlx::query_as("SELECT media_type, size FROM manifests WHERE repository_id = $1 AND digest = $2")
                .bind(repository)
                .bind(digest.to_bytes())
                .fetch_one(&mut *connection)
                .await
                .during("reading what was restored")?;
        let change = Change::Push {
            digest: *digest,
            media_type,
            size: size(bytes),
            tags: if digest == own { tags.to_vec() } else { Vec::new() },
            actor: actor.to_owned(),
            origin: Origin::default(),
        };
        outbox::tell(connection, repository, &change).await?;
    }
    Ok(())
}

/// What a tag named when it was deleted last.
async fn last_deleted(connection: &mut PgConnection, repository: i64, tag: &Tag) -> Result<Option<Digest>> {
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
    connection: &mut PgConnection,
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
    connection: &mut PgConnection,
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

pub(super) async fn put_in(
    connection: &mut PgConnection,
    repository: &RepoName,
    digest: &Digest,
    immutable: &[TagPattern],
    actor: &str,
    times: Times,
) -> Result<DeleteOutcome> {
    let Some(repository) = lock_repository(connection, repository).await? else {
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
    // Its tags have the same time: so they are found when it is restored.
    let at: i64 = sqlx::query_scalar(
        "UPDATE manifests SET deleted_at = now_micros(), deleted_by = $2, review_at = now_micros() + $3,
             review_reason = 'deleted'
         WHERE id = $1 RETURNING deleted_at",
    )
    .bind(id)
    .bind(actor)
    .bind(times.undelete_window)
    .fetch_one(&mut *connection)
    .await
    .during("moving a manifest to the trash")?;
    let set = tags::Set {
        repository,
        manifest: id,
        digest,
        tags: &[],
        actor,
    };
    set.delete_all(connection, at).await?;
    let change = Change::Delete {
        digest: *digest,
        actor: actor.to_owned(),
    };
    outbox::tell(connection, repository, &change).await?;
    manifests::count(connection, repository, -1).await?;
    Ok(DeleteOutcome::Deleted)
}
