//! `[storage]`

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, Secret, require, units};

const HOUR: Duration = Duration::from_secs(3600);
/// What signatures allow.
const REDIRECT_TTL_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Where blobs lie.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageConfig {
    pub backend: StorageBackend,
    /// In the file system: no blob is taken that would leave less free. None: a little.
    #[serde(rename = "reserve", with = "units::optional_size")]
    pub reserve_bytes: Option<u64>,
    pub s3: S3Config,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StorageBackend {
    /// In the data directory.
    #[default]
    Filesystem,
    S3,
}

impl StorageBackend {
    /// What metrics and traces call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Filesystem => "filesystem",
            Self::S3 => "s3",
        }
    }
}

/// A bucket, and how to reach it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct S3Config {
    pub bucket: String,
    /// Before every object's name, with a slash behind it; empty: the bucket is ours alone.
    pub prefix: String,
    /// Another server than Amazon's.
    pub endpoint: Option<String>,
    pub region: String,
    /// The bucket's name in the path instead of the host name.
    pub path_style: bool,
    /// With `secret_access_key`. None: from the environment, a profile, a web identity or the machine's role, as every
    /// AWS tool does.
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<Secret>,
    /// PEM certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Every part but the last has the same size (Cloudflare R2 wants that).
    pub uniform_parts: bool,
    /// Send clients to the bucket for blobs.
    pub redirect: bool,
    /// How long an address that clients are sent to is good.
    #[serde(with = "units::time")]
    pub redirect_ttl: Duration,
    /// Where clients reach the bucket's server, if not where this server does.
    pub redirect_endpoint: Option<String>,
    /// In place of `limits.delete_delay`: deletions in a bucket can't be taken back by anybody.
    #[serde(with = "units::time")]
    pub delete_delay: Duration,
}

impl StorageConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.backend == StorageBackend::Filesystem {
            return Ok(());
        }
        let s3 = &self.s3;
        require(!s3.bucket.is_empty(), "storage.s3.bucket", "is missing")?;
        require(
            s3.access_key_id.is_some() == s3.secret_access_key.is_some(),
            "storage.s3.secret_access_key",
            "comes with access_key_id: give both or none",
        )?;
        for (endpoint, key) in [
            (&s3.endpoint, "storage.s3.endpoint"),
            (&s3.redirect_endpoint, "storage.s3.redirect_endpoint"),
        ] {
            let good = endpoint
                .as_ref()
                .is_none_or(|url| url::Url::parse(url).is_ok_and(|url| url.has_host()));
            require(good, key, "must be a URL such as https://s3.example.com")?;
        }
        require(
            !s3.redirect
                || (s3.redirect_ttl >= Duration::from_secs(1) && s3.redirect_ttl <= REDIRECT_TTL_MAX),
            "storage.s3.redirect_ttl",
            "must be between 1s and 7d",
        )?;
        require(
            !s3.redirect || s3.redirect_ttl <= s3.delete_delay,
            "storage.s3.redirect_ttl",
            "must not be longer than delete_delay: the object would be gone while its address is good",
        )
    }
}

impl Default for S3Config {
    fn default() -> Self {
        Self {
            bucket: String::new(),
            prefix: String::new(),
            endpoint: None,
            region: "us-east-1".to_owned(),
            path_style: false,
            access_key_id: None,
            secret_access_key: None,
            ca_file: None,
            uniform_parts: false,
            redirect: false,
            redirect_ttl: Duration::from_secs(20 * 60),
            redirect_endpoint: None,
            delete_delay: 24 * HOUR,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_needs_a_name_and_addresses_must_not_outlive_objects() {
        let mut config = StorageConfig::default();
        config.validate().unwrap();
        config.backend = StorageBackend::S3;
        let refused = |config: &StorageConfig| config.validate().unwrap_err().to_string();
        assert!(refused(&config).starts_with("storage.s3.bucket"));
        config.s3.bucket = "blobs".to_owned();
        config.validate().unwrap();
        config.s3.redirect = true;
        config.s3.redirect_ttl = config.s3.delete_delay * 2;
        assert!(refused(&config).contains("delete_delay"));
        config.s3.redirect_ttl = HOUR;
        config.s3.endpoint = Some("s3.example.com".to_owned());
        assert!(refused(&config).starts_with("storage.s3.endpoint"));
        config.s3.endpoint = Some("http://127.0.0.1:7070".to_owned());
        config.s3.access_key_id = Some("id".to_owned());
        assert!(refused(&config).contains("both or none"));
        config.s3.secret_access_key = Some(Secret::new("secret"));
        config.validate().unwrap();
        assert!(!format!("{config:?}").contains("\"secret\""));
    }
}
