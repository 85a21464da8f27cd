//! What was deleted and can be brought back, until its manifest is purged.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use oci::{Digest, RepoName, Tag};

use super::CursorError;
use crate::metadata::Result;

#[async_trait]
pub(crate) trait Trash: Send + Sync {
    /// Manifests in the trash, in the order of their deletion, after the one at `after` (its time and row).
    async fn list_trash(&self, repository: &RepoName, after: (i64, i64), limit: u32) -> Result<TrashPage>;
    /// Deleted tags whose manifests are still there, the last deleted first, each once, after the one at `after` (its
    /// time and row).
    async fn list_deleted_tags(
        &self,
        repository: &RepoName,
        after: (i64, i64),
        limit: u32,
    ) -> Result<DeletedTags>;
    /// Brings back tags and manifests with what they list, all or nothing. Durable.
    async fn undelete(&self, undelete: Undelete) -> Result<UndeleteOutcome>;
}

/// How far somebody has read the trash: first the tags, the latest deletion first, then the manifests, the first one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrashCursor {
    /// After the tag of this deletion and row.
    Tags((i64, i64)),
    /// After the manifest of this deletion and row.
    Manifests((i64, i64)),
}

impl Default for TrashCursor {
    fn default() -> Self {
        Self::Tags((i64::MAX, i64::MAX))
    }
}

impl fmt::Display for TrashCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (list, (at, row)) = match self {
            Self::Tags(last) => ("t", last),
            Self::Manifests(last) => ("m", last),
        };
        write!(f, "{list}.{at}.{row}")
    }
}

impl FromStr for TrashCursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let last = |text: &str| {
            let (at, row) = text.split_once('.')?;
            Some((at.parse().ok()?, row.parse().ok()?))
        };
        let cursor = match text.split_once('.') {
            Some(("t", rest)) => last(rest).map(Self::Tags),
            Some(("m", rest)) => last(rest).map(Self::Manifests),
            _ => None,
        };
        cursor.ok_or(CursorError)
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct DeletedTags {
    pub(crate) tags: Vec<TrashedTag>,
    pub(crate) next: Option<(i64, i64)>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct TrashPage {
    pub(crate) manifests: Vec<TrashedManifest>,
    pub(crate) next: Option<(i64, i64)>,
}

/// Times are microseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TrashedManifest {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) size: u64,
    pub(crate) deleted_at: i64,
    pub(crate) deleted_by: String,
    /// When it goes for good, if nothing else needs it.
    pub(crate) until: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TrashedTag {
    pub(crate) tag: Tag,
    pub(crate) digest: Digest,
    pub(crate) deleted_at: i64,
    pub(crate) deleted_by: String,
    /// When its manifest is reviewed; none: something else needs that.
    pub(crate) until: Option<i64>,
}

/// A tag, a manifest with the tags it was deleted with, or a tag to be set to a manifest.
#[derive(Clone, Debug)]
pub(crate) struct Undelete {
    pub(crate) repository: RepoName,
    pub(crate) tag: Option<Tag>,
    pub(crate) digest: Option<Digest>,
    /// Move a tag that names something else by now.
    pub(crate) force: bool,
    pub(crate) actor: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UndeleteOutcome {
    Restored {
        /// Out of the trash: the one that was asked for and those that it lists.
        manifests: Vec<Digest>,
        tags: Vec<Tag>,
    },
    /// It was never deleted, or is purged.
    Unknown,
    /// The tag names another manifest now.
    Taken { tag: Tag, digest: Digest },
}
