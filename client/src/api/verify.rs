//! `/api/v1/verify`: reading every blob again.

use oci::Digest;
use serde::{Deserialize, Serialize};

/// How far a verification is, or how the last one went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VerifyStatus {
    pub state: VerifyState,
    /// Blobs read and found right.
    pub verified: u64,
    pub bytes: u64,
    /// Blobs taken out of service, because what is stored is not what was pushed.
    pub corrupt: Vec<Digest>,
    /// Blobs taken out of service, because nothing is stored.
    pub missing: Vec<Digest>,
    /// Blobs that were not there; looked for once more after a while.
    pub suspects: Vec<Digest>,
    /// Blobs that could not be read; nothing is concluded of that.
    pub unreadable: u64,
    /// Why it stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alarm: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerifyState {
    /// None was ever asked for.
    #[default]
    Never,
    Running,
    /// All was read; what was missing is looked for once more.
    Waiting,
    Finished,
    /// Too much is wrong: rather the machine or the configuration than single blobs.
    Stopped,
}

impl VerifyState {
    pub fn is_over(self) -> bool {
        matches!(self, Self::Never | Self::Finished | Self::Stopped)
    }
}
