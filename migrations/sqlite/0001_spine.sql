-- The registry's own tables. Times are microseconds since 1970; digests are one algorithm byte and the raw hash
-- (1 = sha256, 2 = sha512). Rules that hold over all tables: metadata/mod.rs. Indexes that only later features need
-- come with them: each one costs every push a page.

CREATE TABLE store (
    id           INTEGER PRIMARY KEY CHECK (id = 1),
    -- The same in the data directory: a foreign database must not make orphans of its objects.
    uuid         TEXT    NOT NULL,
    -- The oldest schema generation whose binaries may write here.
    min_binary   INTEGER NOT NULL,
    journal_head INTEGER NOT NULL DEFAULT 0,
    -- The kernel boot in which this database was last opened, and whether it was closed in order.
    boot_id      TEXT    NOT NULL DEFAULT '',
    clean        INTEGER NOT NULL DEFAULT 1,
    last_seen    INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The row is the repository's mutex. The first commit makes it, not the first POST.
CREATE TABLE repositories (
    id             INTEGER PRIMARY KEY,
    name           TEXT    NOT NULL,
    deleted_at     INTEGER,
    -- Without the trash.
    manifest_count INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX repositories_by_name ON repositories (name) WHERE deleted_at IS NULL;
CREATE INDEX repositories_in_catalog ON repositories (name) WHERE manifest_count > 0;

CREATE TABLE repository_usage (
    repository_id INTEGER NOT NULL REFERENCES repositories (id),
    shard         INTEGER NOT NULL,
    bytes         INTEGER NOT NULL,
    PRIMARY KEY (repository_id, shard)
) STRICT, WITHOUT ROWID;

CREATE TABLE blobs (
    id          INTEGER PRIMARY KEY,
    digest      BLOB    NOT NULL UNIQUE,
    size        INTEGER NOT NULL,
    storage_key TEXT    NOT NULL UNIQUE,
    -- 0 live, 1 quarantined.
    state       INTEGER NOT NULL DEFAULT 0,
    created_at  INTEGER NOT NULL,
    verified_at INTEGER NOT NULL
) STRICT;

-- Access is a link.
CREATE TABLE repository_blobs (
    repository_id INTEGER NOT NULL REFERENCES repositories (id),
    blob_id       INTEGER NOT NULL REFERENCES blobs (id),
    hidden        INTEGER NOT NULL DEFAULT 0,
    linked_at     INTEGER NOT NULL,
    review_at     INTEGER,
    review_reason TEXT,
    PRIMARY KEY (repository_id, blob_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX repository_blobs_by_blob ON repository_blobs (blob_id, repository_id);
CREATE INDEX repository_blobs_in_review ON repository_blobs (review_at) WHERE review_at IS NOT NULL;

CREATE TABLE manifests (
    id            INTEGER PRIMARY KEY,
    repository_id INTEGER NOT NULL REFERENCES repositories (id),
    digest        BLOB    NOT NULL,
    media_type    TEXT    NOT NULL,
    artifact_type TEXT    NOT NULL DEFAULT '',
    subject       BLOB,
    size          INTEGER NOT NULL,
    -- Ready for the referrers list; only kept where there is a subject.
    descriptor    TEXT,
    pushed_at     INTEGER NOT NULL,
    pushed_by     TEXT    NOT NULL,
    untagged_at   INTEGER,
    -- Set: in the trash.
    deleted_at    INTEGER,
    deleted_by    TEXT,
    review_at     INTEGER,
    review_reason TEXT,
    payload       BLOB    NOT NULL,
    UNIQUE (repository_id, digest),
    UNIQUE (repository_id, id)
) STRICT;
CREATE INDEX manifests_as_referrers ON manifests (repository_id, subject, artifact_type, digest)
    WHERE subject IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX manifests_by_subject ON manifests (repository_id, subject) WHERE subject IS NOT NULL;
CREATE INDEX manifests_in_review ON manifests (review_at) WHERE review_at IS NOT NULL;
CREATE INDEX manifests_in_trash ON manifests (repository_id, deleted_at) WHERE deleted_at IS NOT NULL;

-- A stored manifest, trashed or not, never loses a blob.
CREATE TABLE manifest_blobs (
    manifest_id   INTEGER NOT NULL,
    blob_id       INTEGER NOT NULL,
    -- Behind the key: SQLite before 3.41 reports a NULL in columns before it (`PRAGMA integrity_check`).
    repository_id INTEGER NOT NULL,
    PRIMARY KEY (manifest_id, blob_id),
    FOREIGN KEY (repository_id, manifest_id) REFERENCES manifests (repository_id, id) ON DELETE CASCADE,
    FOREIGN KEY (repository_id, blob_id) REFERENCES repository_blobs (repository_id, blob_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX manifest_blobs_by_blob ON manifest_blobs (repository_id, blob_id);

-- No foreign key on the child: sparse indexes list manifests that never come.
CREATE TABLE manifest_children (
    parent_id     INTEGER NOT NULL,
    child_digest  BLOB    NOT NULL,
    repository_id INTEGER NOT NULL,
    PRIMARY KEY (parent_id, child_digest),
    FOREIGN KEY (repository_id, parent_id) REFERENCES manifests (repository_id, id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX manifest_children_by_child ON manifest_children (repository_id, child_digest);

CREATE TABLE tags (
    repository_id INTEGER NOT NULL,
    name          TEXT    NOT NULL,
    manifest_id   INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    updated_by    TEXT    NOT NULL,
    PRIMARY KEY (repository_id, name),
    FOREIGN KEY (repository_id, manifest_id) REFERENCES manifests (repository_id, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX tags_by_manifest ON tags (repository_id, manifest_id);

CREATE TABLE tag_events (
    id            INTEGER PRIMARY KEY,
    repository_id INTEGER NOT NULL REFERENCES repositories (id),
    name          TEXT    NOT NULL,
    digest        BLOB,
    previous      BLOB,
    -- 'set' or 'delete'.
    action        TEXT    NOT NULL,
    actor         TEXT    NOT NULL,
    at            INTEGER NOT NULL
) STRICT;
CREATE INDEX tag_events_by_tag ON tag_events (repository_id, name, id);

-- An object's name is always in exactly one of uploads.key, blobs.storage_key, doomed.key.
CREATE TABLE uploads (
    id           BLOB    PRIMARY KEY,
    repository   TEXT    NOT NULL,
    principal    TEXT    NOT NULL,
    algorithm    INTEGER NOT NULL,
    offset       INTEGER NOT NULL DEFAULT 0,
    hash_state   BLOB,
    -- The boot in which the bytes up to `offset` were written: after another one they are hashed again.
    boot_id      TEXT    NOT NULL,
    key          TEXT,
    writer       TEXT,
    writer_until INTEGER,
    epoch        INTEGER NOT NULL DEFAULT 0,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX uploads_by_key ON uploads (key) WHERE key IS NOT NULL;
CREATE INDEX uploads_by_expiry ON uploads (expires_at);

-- The only licence to delete bytes.
CREATE TABLE doomed (
    key           TEXT    PRIMARY KEY,
    due_at        INTEGER NOT NULL,
    claimed_until INTEGER,
    attempts      INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX doomed_by_due ON doomed (due_at);

-- Step cache: records belong to a repository and pin their layers there.
CREATE TABLE cache_records (
    repository_id INTEGER NOT NULL REFERENCES repositories (id),
    key           TEXT    NOT NULL,
    result        TEXT    NOT NULL,
    last_used     INTEGER NOT NULL,
    PRIMARY KEY (repository_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX cache_records_by_use ON cache_records (last_used);

CREATE TABLE cache_record_blobs (
    repository_id INTEGER NOT NULL,
    key           TEXT    NOT NULL,
    blob_id       INTEGER NOT NULL,
    PRIMARY KEY (repository_id, key, blob_id),
    FOREIGN KEY (repository_id, key) REFERENCES cache_records (repository_id, key) ON DELETE CASCADE,
    FOREIGN KEY (repository_id, blob_id) REFERENCES repository_blobs (repository_id, blob_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX cache_record_blobs_by_blob ON cache_record_blobs (repository_id, blob_id);

CREATE TABLE cache_memos (
    repository_id INTEGER NOT NULL REFERENCES repositories (id),
    key           TEXT    NOT NULL,
    value         TEXT    NOT NULL,
    last_used     INTEGER NOT NULL,
    PRIMARY KEY (repository_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX cache_memos_by_use ON cache_memos (last_used);
