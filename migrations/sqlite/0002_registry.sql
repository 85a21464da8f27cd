-- What the complete registry adds: uploads to S3, pulls, users and grants, leases, events. Conventions: 0001.

-- What the blob store has to remember of an upload between requests, in its own form; NULL: nothing was stored yet, or
-- the store is the file system, which finds everything again by the upload's id.
ALTER TABLE uploads ADD COLUMN notes BLOB;

ALTER TABLE doomed ADD COLUMN size INTEGER;

-- Written once a minute from memory, so that manifests stay cold.
CREATE TABLE manifest_pulls (
    manifest_id    INTEGER PRIMARY KEY REFERENCES manifests (id) ON DELETE CASCADE,
    last_pulled_at INTEGER NOT NULL,
    pulls          INTEGER NOT NULL
) STRICT;

-- What a running build has resolved and still needs.
CREATE TABLE holds (
    repository_id INTEGER NOT NULL REFERENCES repositories (id),
    digest        BLOB    NOT NULL,
    holder        TEXT    NOT NULL,
    until         INTEGER NOT NULL,
    PRIMARY KEY (repository_id, digest, holder)
) STRICT, WITHOUT ROWID;
CREATE INDEX holds_by_end ON holds (until);

-- Bumped with every change of users, groups, tokens and grants.
ALTER TABLE store ADD COLUMN policy_version INTEGER NOT NULL DEFAULT 0;
-- Why collection pauses until it is confirmed; NULL: it runs.
ALTER TABLE store ADD COLUMN gc_paused TEXT;

CREATE TABLE users (
    id            INTEGER PRIMARY KEY,
    name          TEXT    NOT NULL UNIQUE,
    -- PHC string (argon2) or bcrypt; NULL: no password log-in.
    password_hash TEXT,
    admin         INTEGER NOT NULL DEFAULT 0,
    disabled_at   INTEGER,
    created_at    INTEGER NOT NULL
) STRICT;

CREATE TABLE groups (
    id   INTEGER PRIMARY KEY,
    name TEXT    NOT NULL UNIQUE
) STRICT;

CREATE TABLE group_members (
    group_id INTEGER NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    -- A name, not an id: members may come from an htpasswd file.
    member   TEXT    NOT NULL,
    PRIMARY KEY (group_id, member)
) STRICT, WITHOUT ROWID;

-- Robots' tokens; only their hashes are kept.
CREATE TABLE tokens (
    id           INTEGER PRIMARY KEY,
    name         TEXT    NOT NULL UNIQUE,
    sha256       BLOB    NOT NULL UNIQUE,
    owner        TEXT    NOT NULL,
    -- JSON: the grants it is cut down to.
    scopes       TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    last_used_at INTEGER
) STRICT;

CREATE TABLE grants (
    id      INTEGER PRIMARY KEY,
    -- `user:NAME`, `group:NAME`, `anonymous`, `authenticated`.
    subject TEXT NOT NULL,
    pattern TEXT NOT NULL,
    -- Comma-separated: pull, push, delete, admin.
    actions TEXT NOT NULL,
    UNIQUE (subject, pattern)
) STRICT;

-- Keys that all replicas share, such as the one that signs tokens.
CREATE TABLE secrets (
    name       TEXT    PRIMARY KEY,
    value      BLOB    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Jobs that run once among replicas.
CREATE TABLE leases (
    name       TEXT    PRIMARY KEY,
    holder     TEXT    NOT NULL,
    epoch      INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- How far jobs that go on over restarts have come.
CREATE TABLE progress (
    name       TEXT    PRIMARY KEY,
    value      TEXT    NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Changes of state, for the journal and for webhooks; deleted when both are done.
CREATE TABLE outbox (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    kind       TEXT    NOT NULL,
    repository TEXT    NOT NULL,
    -- The digest of the manifest that it is about.
    manifest   BLOB,
    payload    TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    journaled  INTEGER NOT NULL DEFAULT 0,
    fanned_out INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX outbox_to_journal ON outbox (id) WHERE journaled = 0;
CREATE INDEX outbox_to_fan_out ON outbox (id) WHERE fanned_out = 0;

CREATE TABLE webhook_deliveries (
    id       INTEGER PRIMARY KEY,
    endpoint TEXT    NOT NULL,
    event    TEXT    NOT NULL,
    due_at   INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX webhook_deliveries_by_due ON webhook_deliveries (due_at);

-- The trash: tags by when they were deleted. Only deletions pay for it.
CREATE INDEX tag_events_of_deletions ON tag_events (repository_id, at) WHERE action = 'delete';
