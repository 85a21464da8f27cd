//! Changes that others are told of: the journal in the blob store, and webhooks.
//!
//! A row is written in the transaction of the change itself, so that no change is lost and none is told that did not
//! happen. It is deleted when everybody who wants it has it.

use async_trait::async_trait;
use bytes::Bytes;
use oci::{Digest, RepoName, Tag};
use serde::{Deserialize, Serialize};

use super::{PutManifest, Result};

/// Who deleted what collection removed.
pub(crate) const COLLECTOR: &str = "gc";

/// What is to be told, and to whom.
#[async_trait]
pub(crate) trait Outbox: Send + Sync {
    /// The oldest events that are not in the journal.
    async fn events_to_journal(&self, limit: u32) -> Result<Vec<Event>>;
    /// Records that the journal has these events in its segment `head`, and whether nobody else wants them. Durable.
    async fn mark_journaled(&self, events: &[i64], head: i64, all_told: bool) -> Result<()>;
    /// The oldest events that no deliveries were made of.
    async fn events_to_fan_out(&self, limit: u32) -> Result<Vec<Event>>;
    /// Turns events into deliveries, (endpoint, body), all or nothing. Durable.
    async fn fan_out(&self, events: &[i64], deliveries: Vec<(String, String)>) -> Result<()>;
    /// The oldest deliveries of an endpoint that are due.
    async fn due_deliveries(&self, endpoint: &str, limit: u32) -> Result<Vec<Delivery>>;
    /// Forgets a delivery that arrived or is given up.
    async fn finish_delivery(&self, id: i64) -> Result<()>;
    /// Tries a delivery again after a delay.
    async fn retry_delivery(&self, id: i64, delay_micros: i64) -> Result<()>;
    /// Where the journal and the events stand.
    async fn journal_position(&self) -> Result<JournalPosition>;
    /// A page of manifests outside the trash with their tags, by id.
    async fn manifests_after(&self, after: i64, limit: u32) -> Result<Vec<(i64, JournaledManifest)>>;
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// Never given twice.
    pub(crate) id: i64,
    /// Microseconds since 1970.
    pub(crate) at: i64,
    pub(crate) repository: RepoName,
    pub(crate) change: Change,
    /// Of a push; none: the manifest is gone again.
    pub(crate) payload: Option<Bytes>,
}

/// What happened, as an outbox row holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub(crate) enum Change {
    /// A manifest was pushed, and these tags set.
    Push {
        digest: Digest,
        media_type: String,
        size: u64,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tags: Vec<Tag>,
        actor: String,
        #[serde(default)]
        origin: Origin,
    },
    /// A manifest went to the trash with its tags, or was removed without that.
    Delete { digest: Digest, actor: String },
    /// A tag was deleted.
    Untag { tag: Tag, digest: Digest, actor: String },
}

/// The request behind a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Origin {
    pub(crate) id: String,
    pub(crate) address: String,
    pub(crate) host: String,
    pub(crate) user_agent: String,
}

/// A manifest as a journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JournaledManifest {
    pub(crate) repository: RepoName,
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) payload: Bytes,
    pub(crate) tags: Vec<Tag>,
    pub(crate) actor: String,
    pub(crate) at: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) id: i64,
    pub(crate) body: String,
    pub(crate) attempts: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct JournalPosition {
    /// The last segment that was recorded as written.
    pub(crate) head: i64,
    /// The last event that ever was.
    pub(crate) last_event: i64,
}

impl Change {
    /// A push as it was asked for.
    pub(super) fn pushed(put: &PutManifest) -> Self {
        Self::Push {
            digest: put.digest,
            media_type: put.media_type.clone(),
            size: put.bytes.len() as u64,
            tags: put.tags.clone(),
            actor: put.actor.clone(),
            origin: put.origin.clone(),
        }
    }

    /// A manifest that collection removed, which nobody had deleted before.
    pub(super) fn purged(digest: Digest) -> Self {
        Self::Delete {
            digest,
            actor: COLLECTOR.to_owned(),
        }
    }

    /// The manifest that it is about.
    pub(super) fn digest(&self) -> Digest {
        match self {
            Self::Push { digest, .. } | Self::Delete { digest, .. } | Self::Untag { digest, .. } => *digest,
        }
    }

    /// In one word.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Push { .. } => "push",
            Self::Delete { .. } => "delete",
            Self::Untag { .. } => "untag",
        }
    }

    /// As it lies in the database.
    pub(crate) fn to_json(&self) -> String {
        // Nothing in it can fail to be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}
