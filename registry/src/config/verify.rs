//! `[verify]`

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, require, units};

/// How blobs are read again (`layeryard verify`).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct VerifyConfig {
    /// A second.
    #[serde(rename = "rate", with = "units::size")]
    pub rate_bytes: u64,
    /// A blob that isn't there is looked for once more after this long, before it counts as missing.
    #[serde(with = "units::time")]
    pub missing_again_after: Duration,
}

impl Default for VerifyConfig {
    fn default() -> Self {
        Self {
            rate_bytes: 64 << 20,
            missing_again_after: Duration::from_secs(3600),
        }
    }
}

impl VerifyConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        require(self.rate_bytes > 0, "verify.rate", "must be 1B at least")
    }
}
