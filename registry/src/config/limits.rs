//! `[limits]`

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, require, units};

/// Every limit of the server.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The largest manifest that is accepted.
    #[serde(rename = "manifest_size_max", with = "units::size")]
    pub manifest_size_bytes_max: u64,
    /// The largest blob that is accepted.
    #[serde(rename = "blob_size_max", with = "units::size")]
    pub blob_size_bytes_max: u64,
    /// An upload session without any request for this long is dropped.
    #[serde(with = "units::time")]
    pub upload_idle_max: Duration,
    /// An upload session older than this is dropped, whatever it does.
    #[serde(with = "units::time")]
    pub upload_age_max: Duration,
    /// How long deleted tags and manifests can be restored.
    #[serde(with = "units::time")]
    pub undelete_window: Duration,
    /// How long a fresh blob is safe from collection while its manifest is on the way.
    #[serde(with = "units::time")]
    pub review_delay: Duration,
    /// How long after its row is gone an object's bytes are deleted: longer than any running download.
    #[serde(with = "units::time")]
    pub delete_delay: Duration,
    /// How often what is due is collected.
    #[serde(with = "units::time")]
    pub collect_interval: Duration,
    /// Records of the build cache that nobody has used for so long go.
    #[serde(with = "units::time")]
    pub cache_unused_max: Duration,
    /// How long a server that was told to stop goes on as before, but for `/readyz`: so long balancers may take to notice.
    #[serde(with = "units::time")]
    pub shutdown_delay: Duration,
    /// How long a stopping server waits for running transfers.
    #[serde(with = "units::time")]
    pub shutdown_grace: Duration,
    /// How long a connection may be without a whole request's head: at its beginning, between requests, and while one
    /// comes.
    #[serde(with = "units::time")]
    pub header_read_max: Duration,
    /// How long a request's body may bring nothing before it is ended.
    #[serde(with = "units::time")]
    pub body_stalled_max: Duration,
    /// How long a client may take nothing of its answer before the connection is cut.
    #[serde(with = "units::time")]
    pub answer_stalled_max: Duration,
    /// Requests that bring blobs at once.
    pub uploads_max: usize,
    /// … of one user, or of one address without one.
    pub uploads_per_client_max: usize,
    /// Connections served at once; more wait to be accepted.
    pub connections_max: usize,
}

const HOUR: Duration = Duration::from_secs(3600);

impl Default for Limits {
    fn default() -> Self {
        Self {
            // The specification asks for 4 MiB at least; the conformance suite's largest has 3.9 MB.
            manifest_size_bytes_max: 4 * 1024 * 1024,
            blob_size_bytes_max: 1 << 40,
            upload_idle_max: 24 * HOUR,
            upload_age_max: 7 * 24 * HOUR,
            undelete_window: 7 * 24 * HOUR,
            review_delay: 24 * HOUR,
            delete_delay: HOUR,
            collect_interval: Duration::from_secs(30),
            cache_unused_max: 30 * 24 * HOUR,
            shutdown_delay: Duration::ZERO,
            shutdown_grace: Duration::from_secs(30),
            header_read_max: Duration::from_secs(75),
            body_stalled_max: Duration::from_secs(60),
            answer_stalled_max: Duration::from_secs(300),
            uploads_max: 4096,
            uploads_per_client_max: 1024,
            connections_max: 16_384,
        }
    }
}

impl Limits {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        require(
            self.connections_max > 0,
            "limits.connections_max",
            "must be 1 at least",
        )?;
        require(
            self.manifest_size_bytes_max >= 1024,
            "limits.manifest_size_max",
            "must be 1KiB at least: no image would fit",
        )?;
        require(
            self.blob_size_bytes_max >= 1024,
            "limits.blob_size_max",
            "must be 1KiB at least: no image would fit",
        )?;
        require(
            self.upload_idle_max <= self.upload_age_max,
            "limits.upload_idle_max",
            "must not be longer than limits.upload_age_max",
        )?;
        require(
            !self.collect_interval.is_zero(),
            "limits.collect_interval",
            "must be longer than 0s",
        )?;
        for (time, key) in [
            (self.header_read_max, "limits.header_read_max"),
            (self.body_stalled_max, "limits.body_stalled_max"),
            (self.answer_stalled_max, "limits.answer_stalled_max"),
        ] {
            require(!time.is_zero(), key, "must be longer than 0s")?;
        }
        require(self.uploads_max > 0, "limits.uploads_max", "must be 1 at least")?;
        require(
            self.uploads_per_client_max > 0,
            "limits.uploads_per_client_max",
            "must be 1 at least",
        )
    }
}
