//! Garbage collection, the trash and its undoing.
//!
//! | Call | Who | Request → answer |
//! |---|---|---|
//! | `GET /api/v1/gc` | admin | → [`Status`] |
//! | `POST /api/v1/gc/run` | admin | decides about everything that is due → [`Round`] |
//! | `POST /api/v1/gc/confirm` | admin | lets a paused collection go on → 204 |
//! | `GET /api/v1/gc/explain?after=&n=` | admin | what waits for a review → [`ExplainPage`] |
//! | `GET /api/v1/gc/explain?repository=NAME&after=&n=` | pull | everything in a repository → [`ExplainPage`] |
//! | `GET /api/v1/gc/explain?repository=NAME&digest=DIGEST` | pull | → [`ExplainPage`] |
//! | `GET /api/v1/trash?repository=NAME&after=&n=` | pull | → [`TrashPage`] |
//! | `POST /api/v1/undelete` | push | [`UndeleteRequest`] → [`Undeleted`]; 404: purged; 409: a tag names something else |

use std::collections::BTreeMap;

use oci::{Digest, RepoName, Tag};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Why nothing is collected until it is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// Reviews that are due; at most 100,000 are counted.
    pub manifests_due: u64,
    pub blobs_due: u64,
    pub oldest_due_seconds: u64,
    pub interval_seconds: u64,
    pub undelete_window_seconds: u64,
    pub review_delay_seconds: u64,
    pub delete_delay_seconds: u64,
}

/// What a round of collection did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    pub manifests_purged: u64,
    pub blobs_unlinked: u64,
    /// Blobs that no repository has any more; their bytes go after the delete delay.
    pub blobs_doomed: u64,
    pub bytes_doomed: u64,
    pub cache_entries_expired: u64,
    /// What was due and is kept, by kind and reason.
    pub kept: BTreeMap<String, u64>,
    /// The time was over before the work was.
    pub more: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExplainPage {
    /// Of a repository that has a policy with retention, on its first page.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<TagFate>,
    pub items: Vec<Explained>,
    /// Where the next page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Manifest,
    Blob,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// As long as what the reason names is there.
    Keep,
    /// Until `until` at least.
    KeepUntil,
    /// After `until`, unless something refers to it by then.
    Remove,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explained {
    pub kind: Kind,
    pub repository: RepoName,
    pub digest: Digest,
    pub size_bytes: u64,
    /// In the trash, or hidden by its deletion.
    pub deleted: bool,
    pub fate: Fate,
    /// `tag`, `index`, `subject`, `manifest`, `cache`, `build`, `trashed`, `pushed`, `untagged`, `pulled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The tag, digest or cache key that the reason is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// All that as a sentence.
    pub says: String,
}

/// What a policy's retention does with a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagFate {
    pub tag: Tag,
    /// The policy that deletes it when it is applied next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_by: Option<String>,
    pub says: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TrashPage {
    pub manifests: Vec<TrashedManifest>,
    /// The latest deletion first. All tags come before the manifests.
    pub tags: Vec<TrashedTag>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TrashedManifest {
    pub digest: Digest,
    pub media_type: String,
    pub size_bytes: u64,
    /// RFC 3339, UTC, as all times here.
    pub deleted_at: String,
    pub deleted_by: String,
    /// When it goes for good; none: an index in the trash lists it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TrashedTag {
    pub tag: Tag,
    pub digest: Digest,
    pub deleted_at: String,
    pub deleted_by: String,
    /// When its manifest is looked at; none: something else keeps that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// A deleted tag; a deleted manifest with the tags that went with it; or, with both, a tag to be set to that manifest.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UndeleteRequest {
    pub repository: RepoName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Tag>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Move tags that name something else by now.
    #[serde(default)]
    pub force: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undeleted {
    /// Out of the trash, with what an index lists.
    pub manifests: Vec<Digest>,
    /// Set again.
    pub tags: Vec<Tag>,
}
