-- What the planner assumes about sizes, fixed instead of measured: a repository may hold everything there is. Without
-- it SQLite takes any index that begins with the repository for a short list and walks through the whole repository.
-- A row: table, index, rows, then rows for each value of the first column, of the first two, and so on.
ANALYZE sqlite_schema;

INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES
    ('repositories', 'repositories_by_name', '1000 1'),
    ('repositories', 'repositories_in_catalog', '1000 1'),
    ('blobs', 'sqlite_autoindex_blobs_1', '5000000 1'),
    ('blobs', 'sqlite_autoindex_blobs_2', '5000000 1'),
    ('repository_blobs', 'repository_blobs', '5000000 500000 1'),
    ('repository_blobs', 'repository_blobs_by_blob', '5000000 5 1'),
    ('repository_blobs', 'repository_blobs_in_review', '100000 1'),
    ('manifests', 'sqlite_autoindex_manifests_1', '1000000 100000 1'),
    ('manifests', 'sqlite_autoindex_manifests_2', '1000000 100000 1'),
    ('manifests', 'manifests_as_referrers', '100000 10000 2 2 1'),
    ('manifests', 'manifests_by_subject', '100000 10000 2'),
    ('manifests', 'manifests_in_review', '500000 1'),
    ('manifests', 'manifests_in_trash', '100000 10000 1'),
    ('manifest_blobs', 'manifest_blobs', '5000000 10 1'),
    ('manifest_blobs', 'manifest_blobs_by_blob', '5000000 500000 4'),
    ('manifest_children', 'manifest_children', '100000 10 1'),
    ('manifest_children', 'manifest_children_by_child', '100000 10000 2'),
    ('tags', 'tags', '1000000 100000 1'),
    ('tags', 'tags_by_manifest', '1000000 100000 2'),
    ('tag_events', 'tag_events_by_tag', '2000000 200000 2 1'),
    ('tag_events', 'tag_events_of_deletions', '100000 10000 2'),
    ('cache_records', 'cache_records', '100000 10000 1'),
    ('cache_records', 'cache_records_by_use', '100000 2'),
    ('cache_memos', 'cache_memos', '100000 10000 1'),
    ('cache_memos', 'cache_memos_by_use', '100000 2'),
    ('cache_record_blobs', 'cache_record_blobs', '200000 20000 2 1'),
    ('cache_record_blobs', 'cache_record_blobs_by_blob', '200000 20000 2');

-- This connection has read them by now; others do when they open.
ANALYZE sqlite_schema;
