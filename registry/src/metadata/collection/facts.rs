//! Rows of [`super::sql`]'s facts, as both databases give them.

use super::{Explained, Kind, LinkFacts, ManifestFacts};
use crate::metadata::Result;
use crate::metadata::values::{Times, digest, repository, size};

pub(in crate::metadata) struct FoundManifest {
    pub(in crate::metadata) item: Explained,
    pub(in crate::metadata) facts: ManifestFacts,
}

pub(in crate::metadata) struct FoundLink {
    pub(in crate::metadata) item: Explained,
}

pub(in crate::metadata) type ManifestRow = (
    i64,
    String,
    Vec<u8>,
    i64,
    Option<i64>,
    Option<i64>,
    i64,
    Option<i64>,
    Option<String>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<i64>,
    Option<i64>,
);

pub(in crate::metadata) type LinkRow = (
    String,
    Vec<u8>,
    i64,
    Option<i64>,
    i64,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<String>,
);

impl FoundManifest {
    pub(in crate::metadata) fn read(row: ManifestRow, now: i64, times: Times) -> Result<Self> {
        let (_, name, stored, bytes, review_at, deleted_at, pushed_at, untagged_at, ..) = row;
        let (.., tag, parent, subject, pulled_at, held_until) = row;
        let other = |stored: Option<Vec<u8>>| stored.map(|stored| digest(&stored)).transpose();
        let facts = ManifestFacts {
            now,
            window: times.undelete_window,
            tag,
            parent: other(parent)?,
            subject: other(subject)?,
            deleted_at,
            pushed_at,
            untagged_at,
            pulled_at,
            held_until,
        };
        let item = Explained {
            kind: Kind::Manifest,
            repository: repository(&name)?,
            digest: digest(&stored)?,
            size: size(bytes),
            deleted: deleted_at.is_some(),
            review_at,
            verdict: facts.verdict(),
        };
        Ok(Self { item, facts })
    }
}

impl FoundLink {
    pub(in crate::metadata) fn read(row: LinkRow) -> Result<Self> {
        let (name, stored, bytes, review_at, hidden, manifest, sparse, cache_record) = row;
        let other = |stored: Option<Vec<u8>>| stored.map(|stored| digest(&stored)).transpose();
        let facts = LinkFacts {
            manifest: other(manifest)?,
            sparse: other(sparse)?,
            cache_record,
        };
        Ok(Self {
            item: Explained {
                kind: Kind::Blob,
                repository: repository(&name)?,
                digest: digest(&stored)?,
                size: size(bytes),
                deleted: hidden != 0,
                review_at,
                verdict: facts.verdict(),
            },
        })
    }
}
