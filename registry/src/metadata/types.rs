//! What goes into and comes out of the metadata store.

use bytes::Bytes;
use oci::{Algorithm, Digest, HashState, RepoName, Tag};

use super::Origin;
use crate::storage::{ObjectName, UploadId, UploadNotes};

#[derive(Clone, Debug)]
pub(crate) struct NewUpload {
    pub(crate) id: UploadId,
    pub(crate) repository: RepoName,
    pub(crate) principal: String,
    pub(crate) algorithm: Algorithm,
    /// Given where one request both opens and closes the session: it is its writer then, with epoch 1.
    pub(crate) closing: Option<Closing>,
}

/// What a closing request knows from the start.
#[derive(Clone, Debug)]
pub(crate) struct Closing {
    pub(crate) digest: Digest,
    /// The final name, recorded before anything is stored under it. A session that has notes keeps the name it has:
    /// bytes may be on their way to it.
    pub(crate) key: ObjectName,
}

/// A session as it is recorded.
#[derive(Clone, Debug)]
pub(crate) struct UploadState {
    pub(crate) algorithm: Algorithm,
    pub(crate) offset: u64,
    /// None: nothing was hashed yet.
    pub(crate) hash_state: Option<HashState>,
    /// Whether the bytes were written under the kernel that runs now; otherwise they may not all be there.
    pub(crate) same_boot: bool,
    pub(crate) epoch: i64,
    /// What the blob store remembers of it.
    pub(crate) notes: Option<UploadNotes>,
    /// A live object of the closing digest is there already.
    pub(crate) stored: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct ClaimUpload {
    pub(crate) id: UploadId,
    pub(crate) repository: RepoName,
    /// Where the writer's bytes begin; none: wherever the session stands.
    pub(crate) offset: Option<u64>,
    pub(crate) closing: Option<Closing>,
}

#[derive(Clone, Debug)]
pub(crate) enum ClaimOutcome {
    Claimed(UploadState),
    /// The session stands at another offset.
    WrongOffset(u64),
    /// Another writer has it.
    Busy,
    Unknown,
}

#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    pub(crate) id: UploadId,
    pub(crate) epoch: i64,
    pub(crate) offset: u64,
    /// None: leaves offset and hash as they are recorded.
    pub(crate) hash_state: Option<HashState>,
    /// None: leaves them as they are recorded.
    pub(crate) notes: Option<UploadNotes>,
    /// Let another writer claim the session.
    pub(crate) release: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct CommitBlob {
    pub(crate) upload: UploadId,
    pub(crate) epoch: i64,
    pub(crate) repository: RepoName,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    /// Where the bytes are; none: a live object of this digest was seen, only link it.
    pub(crate) key: Option<ObjectName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitOutcome {
    Committed,
    /// The session is gone or has another writer.
    UploadUnknown,
    /// There was nothing to link after all: store the bytes.
    NotStored,
}

/// Where a blob's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredBlob {
    pub(crate) size: u64,
    pub(crate) key: ObjectName,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DeleteOutcome {
    Deleted,
    Unknown,
    /// A live manifest of the repository needs it.
    ReferencedBy(Digest),
    /// It has this tag, which may not be deleted.
    Tagged(Tag),
}

#[derive(Clone, Debug)]
pub(crate) struct PutManifest {
    pub(crate) repository: RepoName,
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) artifact_type: String,
    pub(crate) subject: Option<Digest>,
    /// What the referrers list shows, where there is a subject.
    pub(crate) descriptor: Option<String>,
    pub(crate) bytes: Bytes,
    /// Without repetitions.
    pub(crate) blobs: Vec<Digest>,
    /// Without repetitions.
    pub(crate) children: Vec<Digest>,
    /// Whether every blob must be here.
    pub(crate) blobs_required: bool,
    /// Whether every child must be here.
    pub(crate) children_required: bool,
    pub(crate) tags: Vec<Tag>,
    /// Those of the tags that may not be moved.
    pub(crate) immutable: Vec<Tag>,
    pub(crate) actor: String,
    pub(crate) origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PutOutcome {
    Stored,
    /// What it refers to and the repository lacks; nothing was changed.
    Missing {
        blobs: Vec<Digest>,
        manifests: Vec<Digest>,
    },
    /// This tag names something else and may not be moved; nothing was changed.
    Immutable(Tag),
}

#[derive(Clone, Debug)]
pub(crate) struct ReferrersQuery {
    pub(crate) repository: RepoName,
    pub(crate) subject: Digest,
    pub(crate) artifact_type: Option<String>,
    /// The artifact type and digest of the last one seen.
    pub(crate) after: Option<(String, Digest)>,
    pub(crate) limit: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Referrer {
    pub(crate) artifact_type: String,
    pub(crate) digest: Digest,
    /// A descriptor in JSON.
    pub(crate) descriptor: String,
}

/// An object that is to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Doomed {
    pub(crate) key: ObjectName,
    /// Of what was a blob.
    pub(crate) size: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Opened {
    /// The store's identity, also kept beside the objects.
    pub(crate) store_uuid: String,
    /// The machine went down without an orderly end: what was not synced may be lost.
    pub(crate) after_power_cut: bool,
}
