//! The statements of collection, the same for both databases. PostgreSQL locks before it asks.

/// `$1` the manifest, `$2` now.
pub(in crate::metadata) const MANIFEST_FACTS: &str = "SELECT
         m.repository_id, r.name, m.digest, m.size, m.review_at, m.deleted_at, m.pushed_at, m.untagged_at,
         (SELECT t.name FROM tags t
             WHERE t.repository_id = m.repository_id AND t.manifest_id = m.id LIMIT 1),
         (SELECT p.digest FROM manifest_children c JOIN manifests p ON p.id = c.parent_id
             WHERE c.repository_id = m.repository_id AND c.child_digest = m.digest LIMIT 1),
         (SELECT s.digest FROM manifests s
             WHERE s.repository_id = m.repository_id AND s.digest = m.subject),
         (SELECT u.last_pulled_at FROM manifest_pulls u WHERE u.manifest_id = m.id),
         (SELECT max(h.until) FROM holds h
             WHERE h.repository_id = m.repository_id AND h.digest = m.digest AND h.until > $2)
     FROM manifests m JOIN repositories r ON r.id = m.repository_id WHERE m.id = $1";

/// `$1` the repository, `$2` the blob.
pub(in crate::metadata) const LINK_FACTS: &str = "SELECT
         r.name, b.digest, b.size, l.review_at, l.hidden,
         (SELECT m.digest FROM manifest_blobs x JOIN manifests m ON m.id = x.manifest_id
             WHERE x.repository_id = l.repository_id AND x.blob_id = l.blob_id LIMIT 1),
         (SELECT p.digest FROM manifest_children c JOIN manifests p ON p.id = c.parent_id
             WHERE c.repository_id = l.repository_id AND c.child_digest = b.digest LIMIT 1),
         (SELECT c.key FROM cache_record_blobs c
             WHERE c.repository_id = l.repository_id AND c.blob_id = l.blob_id LIMIT 1)
     FROM repository_blobs l JOIN repositories r ON r.id = l.repository_id JOIN blobs b ON b.id = l.blob_id
     WHERE l.repository_id = $1 AND l.blob_id = $2";

/// `$1` now, `$2` how many.
pub(in crate::metadata) const DUE_MANIFESTS: &str =
    "SELECT repository_id, id FROM manifests WHERE review_at <= $1 ORDER BY review_at LIMIT $2";
/// `$1` now, `$2` how many.
pub(in crate::metadata) const DUE_LINKS: &str = "SELECT repository_id, blob_id FROM repository_blobs
     WHERE review_at <= $1 ORDER BY review_at LIMIT $2";

/// `$1` the manifest, `$2` the new time.
pub(in crate::metadata) const KEEP_MANIFEST: &str = "UPDATE manifests SET review_at = $2 WHERE id = $1";
/// `$1` the repository, `$2` the blob, `$3` the new time.
pub(in crate::metadata) const KEEP_LINK: &str =
    "UPDATE repository_blobs SET review_at = $3 WHERE repository_id = $1 AND blob_id = $2";

/// `$1` the repository, `$2` the manifest, `$3` when its blobs are reviewed.
pub(in crate::metadata) const REVIEW_BLOBS: &str = "UPDATE repository_blobs
     SET review_at = $3, review_reason = 'manifest purged'
     WHERE repository_id = $1 AND review_at IS NULL AND blob_id IN (
         SELECT blob_id FROM manifest_blobs WHERE manifest_id = $2
         UNION
         SELECT b.id FROM manifest_children c JOIN blobs b ON b.digest = c.child_digest WHERE c.parent_id = $2)";
/// `$1` the repository, `$2` the manifest, `$3` when its children are reviewed.
pub(in crate::metadata) const REVIEW_CHILDREN: &str = "UPDATE manifests
     SET review_at = $3, review_reason = 'index purged'
     WHERE repository_id = $1 AND review_at IS NULL
         AND digest IN (SELECT child_digest FROM manifest_children WHERE parent_id = $2)";
/// `$1` the repository, `$2` the manifest's digest, `$3` when its referrers are reviewed.
pub(in crate::metadata) const REVIEW_REFERRERS: &str = "UPDATE manifests
     SET review_at = $3, review_reason = 'subject purged'
     WHERE repository_id = $1 AND subject = $2 AND review_at IS NULL";
/// `$1` the manifest. What it refers to goes with it.
pub(in crate::metadata) const DELETE_MANIFEST: &str = "DELETE FROM manifests WHERE id = $1";
/// `$1` the repository, `$2` bytes, negative here.
pub(in crate::metadata) const CHARGE: &str = "INSERT INTO repository_usage (repository_id, shard, bytes)
     VALUES ($1, 0, $2)
     ON CONFLICT (repository_id, shard) DO UPDATE SET bytes = repository_usage.bytes + excluded.bytes";

/// `$1` the repository, `$2` the blob.
pub(in crate::metadata) const DELETE_LINK: &str =
    "DELETE FROM repository_blobs WHERE repository_id = $1 AND blob_id = $2";
/// `$1` the blob: gone, if no repository has it.
pub(in crate::metadata) const DELETE_BLOB: &str = "DELETE FROM blobs WHERE id = $1
     AND NOT EXISTS (SELECT 1 FROM repository_blobs l WHERE l.blob_id = blobs.id) RETURNING storage_key, size";
/// `$1` the name, `$2` bytes, `$3` when they are deleted.
pub(in crate::metadata) const DOOM: &str = "INSERT INTO doomed (key, size, due_at) VALUES ($1, $2, $3)";

/// `$1` used last before, `$2` how many.
pub(in crate::metadata) const STALE_RECORDS: &str =
    "SELECT repository_id, key FROM cache_records WHERE last_used < $1 ORDER BY last_used LIMIT $2";
/// `$1` the repository, `$2` the key, `$3` when its blobs are reviewed.
pub(in crate::metadata) const REVIEW_CACHED: &str = "UPDATE repository_blobs
     SET review_at = $3, review_reason = 'cache expired'
     WHERE repository_id = $1 AND review_at IS NULL
         AND blob_id IN (SELECT blob_id FROM cache_record_blobs WHERE repository_id = $1 AND key = $2)";
/// `$1` the repository, `$2` the key, `$3` used last before.
pub(in crate::metadata) const DELETE_RECORD: &str =
    "DELETE FROM cache_records WHERE repository_id = $1 AND key = $2 AND last_used < $3";
/// `$1` used last before, `$2` how many.
pub(in crate::metadata) const DELETE_MEMOS: &str = "DELETE FROM cache_memos WHERE (repository_id, key) IN (
         SELECT repository_id, key FROM cache_memos WHERE last_used < $1 ORDER BY last_used LIMIT $2)";

/// `$1` now, `$2` how many.
pub(in crate::metadata) const EXPIRE_HOLDS: &str =
    "DELETE FROM holds WHERE (repository_id, digest, holder) IN (
         SELECT repository_id, digest, holder FROM holds WHERE until <= $1 ORDER BY until LIMIT $2)";
/// `$1` before, `$2` how many. Ids grow with time, so that the oldest are found without an index of times.
pub(in crate::metadata) const FORGET_TAG_EVENTS: &str = "DELETE FROM tag_events WHERE at < $1
     AND id IN (SELECT id FROM tag_events WHERE id > 0 ORDER BY id LIMIT $2)";

/// `$1` the repository's name, `$2` the digest, `$3` now, `$4` how many.
pub(in crate::metadata) const RECORD_PULLS: &str =
    "INSERT INTO manifest_pulls (manifest_id, last_pulled_at, pulls)
     SELECT m.id, $3, $4 FROM repositories r JOIN manifests m ON m.repository_id = r.id AND m.digest = $2
         WHERE r.name = $1 AND r.deleted_at IS NULL
     ON CONFLICT (manifest_id) DO UPDATE SET
         last_pulled_at = excluded.last_pulled_at, pulls = manifest_pulls.pulls + excluded.pulls";

/// More than this many are not counted one by one. `$1` now.
pub(in crate::metadata) const COUNT_DUE_MANIFESTS: &str = "SELECT count(*), min(review_at) FROM
     (SELECT review_at FROM manifests WHERE review_at <= $1 ORDER BY review_at LIMIT 100000) AS due";
/// `$1` now.
pub(in crate::metadata) const COUNT_DUE_LINKS: &str = "SELECT count(*), min(review_at) FROM
     (SELECT review_at FROM repository_blobs WHERE review_at <= $1 ORDER BY review_at LIMIT 100000) AS due";

/// `$1`, `$2`: the last one's review and id; `$3` how many.
pub(in crate::metadata) const REVIEWED_MANIFESTS: &str = "SELECT review_at, id FROM manifests
     WHERE review_at IS NOT NULL AND (review_at, id) > ($1, $2) ORDER BY review_at, id LIMIT $3";
/// `$1`, `$2`, `$3`: the last one's review, repository and blob; `$4` how many.
pub(in crate::metadata) const REVIEWED_LINKS: &str =
    "SELECT review_at, repository_id, blob_id FROM repository_blobs
     WHERE review_at IS NOT NULL AND (review_at, repository_id, blob_id) > ($1, $2, $3)
     ORDER BY review_at, repository_id, blob_id LIMIT $4";
/// `$1` the repository, `$2` the last one's id, `$3` how many.
pub(in crate::metadata) const MANIFESTS_OF: &str =
    "SELECT id FROM manifests WHERE repository_id = $1 AND id > $2 ORDER BY id LIMIT $3";
/// `$1` the repository, `$2` the last one's blob, `$3` how many.
pub(in crate::metadata) const LINKS_OF: &str = "SELECT blob_id FROM repository_blobs WHERE repository_id = $1 AND blob_id > $2 ORDER BY blob_id LIMIT $3";
/// `$1` the repository, `$2` the digest: the manifest and the blob there.
pub(in crate::metadata) const ROWS_OF_DIGEST: &str = "SELECT
     (SELECT id FROM manifests WHERE repository_id = $1 AND digest = $2),
     (SELECT l.blob_id FROM blobs b JOIN repository_blobs l ON l.repository_id = $1 AND l.blob_id = b.id
         WHERE b.digest = $2)";

/// `$1` the repository, `$2`, `$3` the last one's deletion and id, `$4` how many.
pub(in crate::metadata) const TRASHED: &str = "SELECT
         id, digest, media_type, size, deleted_at, deleted_by, review_at FROM manifests
     WHERE repository_id = $1 AND deleted_at IS NOT NULL AND (deleted_at, id) > ($2, $3)
     ORDER BY deleted_at, id LIMIT $4";
/// `$1` the repository, `$2`, `$3` the last one's deletion and id, `$4` how many: the last deletion of each, the latest first.
pub(in crate::metadata) const DELETED_TAGS: &str = "SELECT e.id, e.name, e.previous, e.at, e.actor, m.review_at
     FROM tag_events e JOIN manifests m ON m.repository_id = e.repository_id AND m.digest = e.previous
     WHERE e.repository_id = $1 AND e.action = 'delete' AND (e.at, e.id) < ($2, $3)
         AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.repository_id = e.repository_id AND t.name = e.name)
         AND NOT EXISTS (SELECT 1 FROM tag_events l
             WHERE l.repository_id = e.repository_id AND l.name = e.name AND l.id > e.id AND l.action = 'delete')
     ORDER BY e.at DESC, e.id DESC LIMIT $4";
/// `$1` the repository, `$2` the tag.
pub(in crate::metadata) const LAST_DELETED: &str = "SELECT previous FROM tag_events
     WHERE repository_id = $1 AND name = $2 AND action = 'delete' ORDER BY id DESC LIMIT 1";
/// `$1` the repository, `$2` when, `$3` the manifest's digest.
pub(in crate::metadata) const DELETED_WITH: &str = "SELECT DISTINCT name FROM tag_events
     WHERE repository_id = $1 AND action = 'delete' AND at = $2 AND previous = $3 ORDER BY name";
/// `$1` the repository, `$2` the manifest: it and what it lists, as far down as that is in the trash.
pub(in crate::metadata) const TRASHED_CLOSURE: &str = "WITH RECURSIVE closure (id, digest) AS (
         SELECT id, digest FROM manifests WHERE id = $2
         UNION
         SELECT m.id, m.digest FROM closure p JOIN manifest_children c ON c.parent_id = p.id
             JOIN manifests m ON m.repository_id = $1 AND m.digest = c.child_digest
         WHERE m.deleted_at IS NOT NULL)
     SELECT id, digest FROM closure";
/// `$1` the manifest, `$2` its next review.
pub(in crate::metadata) const RESTORE: &str = "UPDATE manifests
     SET deleted_at = NULL, deleted_by = NULL, review_at = $2, review_reason = 'restored'
     WHERE id = $1 AND deleted_at IS NOT NULL";
/// `$1` the repository of manifest `$2`.
pub(in crate::metadata) const COUNT_UP: &str = "UPDATE repositories SET manifest_count = manifest_count + 1
     WHERE id = $1 AND EXISTS (SELECT 1 FROM manifests WHERE id = $2)";
/// `$1` the repository, `$2` the manifest: its blobs are visible again.
pub(in crate::metadata) const UNHIDE: &str = "UPDATE repository_blobs SET hidden = 0
     WHERE repository_id = $1 AND hidden = 1
         AND blob_id IN (SELECT blob_id FROM manifest_blobs WHERE manifest_id = $2)";

/// `$1` the repository's name.
pub(in crate::metadata) const USAGE: &str = "SELECT CAST(coalesce(sum(u.bytes), 0) AS BIGINT)
     FROM repositories r JOIN repository_usage u ON u.repository_id = r.id
     WHERE r.name = $1 AND r.deleted_at IS NULL";
/// `$1` the repository: bytes of blobs that only manifests in the trash need, and of those manifests.
pub(in crate::metadata) const TRASH_BYTES: &str = "SELECT
     (SELECT CAST(coalesce(sum(b.size), 0) AS BIGINT) FROM blobs b
         WHERE b.id IN (SELECT x.blob_id FROM manifests m JOIN manifest_blobs x ON x.manifest_id = m.id
                        WHERE m.repository_id = $1 AND m.deleted_at IS NOT NULL)
             AND NOT EXISTS (SELECT 1 FROM manifest_blobs y JOIN manifests l ON l.id = y.manifest_id
                             WHERE y.repository_id = $1 AND y.blob_id = b.id AND l.deleted_at IS NULL)),
     (SELECT CAST(coalesce(sum(size), 0) AS BIGINT) FROM manifests
         WHERE repository_id = $1 AND deleted_at IS NOT NULL)";
/// `$1` the repository, `$2` the last one's name, `$3` how many.
pub(in crate::metadata) const TAG_AGES: &str = "SELECT t.name, m.digest, t.updated_at, p.last_pulled_at
     FROM tags t JOIN manifests m ON m.id = t.manifest_id
     LEFT JOIN manifest_pulls p ON p.manifest_id = t.manifest_id
     WHERE t.repository_id = $1 AND t.name > $2 ORDER BY t.name LIMIT $3";
/// `$1` the repository, `$2` the tag, `$3` its digest, `$4` when it was set.
pub(in crate::metadata) const TAG_UNCHANGED: &str = "SELECT EXISTS (
     SELECT 1 FROM tags t JOIN manifests m ON m.id = t.manifest_id
     WHERE t.repository_id = $1 AND t.name = $2 AND m.digest = $3 AND t.updated_at = $4)";
