//! A server's configuration: one struct a concern, with its defaults and its checks.
//!
//! The structs are what the TOML file says, with values ready to use; where they come from (file, environment, flags)
//! is the caller's matter. Every key stands in docs/configuration.md, which a test compares with these types.

mod access;
mod database;
mod limits;
mod log;
mod policy;
mod secret;
mod storage;
mod tls;
mod token;
mod traces;
mod units;
mod verify;
mod webhooks;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use access::{AccessConfig, Anonymous, Grant, MetricsAccess, Network, Subject, SubjectError};
pub use database::DatabaseConfig;
pub use limits::Limits;
pub use log::{LogConfig, LogFormat};
pub use policy::{Policy, Quota, Retention, TagPattern};
pub use secret::Secret;
pub use storage::{S3Config, StorageBackend, StorageConfig};
pub use tls::{ClientCertificate, TlsConfig};
pub use token::{ExternalTokenConfig, OidcConfig, OidcGrant, TokenConfig};
pub use traces::TracesConfig;
pub use verify::VerifyConfig;
pub use webhooks::WebhookConfig;

/// How a server runs.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// TCP addresses; port 0 takes a free one. The unix socket in the data directory is always served as well.
    #[serde(with = "units::addresses")]
    pub listen: Vec<SocketAddr>,
    /// Everything the server keeps lies under it. Empty: nobody has said.
    pub data_dir: PathBuf,
    /// Host names (`registry.example.com`, `127.0.0.1:5000`) by which image names mean this server, beside the
    /// listeners' own addresses.
    pub public_hosts: Vec<String>,
    /// Accept manifests and indexes whose references are not all here (the specification's sparse ones). What comes
    /// later is held from the next push of the manifest on.
    pub sparse_indexes: bool,
    pub log: LogConfig,
    pub traces: TracesConfig,
    pub database: DatabaseConfig,
    pub access: AccessConfig,
    pub storage: StorageConfig,
    pub token: TokenConfig,
    pub oidc: Vec<OidcConfig>,
    /// None: plain HTTP.
    pub tls: Option<TlsConfig>,
    pub limits: Limits,
    /// Nothing is pushed and nothing is deleted.
    pub read_only: bool,
    #[serde(rename = "policy", skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Policy>,
    pub verify: VerifyConfig,
    pub webhooks: Vec<WebhookConfig>,
    /// How to start the build worker; none: builds are refused.
    #[serde(skip)]
    pub worker: Option<WorkerCommand>,
}

/// The program that builds, started by the server when the first build comes.
#[derive(Clone, Debug)]
pub struct WorkerCommand {
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub env: BTreeMap<OsString, OsString>,
}

/// A configuration that makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{key}: {problem}")]
    Value { key: &'static str, problem: String },
    #[error(
        "refusing to listen on {0}: other machines reach it and nobody decided what they may do; \
         set [access] anonymous = \"none\", \"read-only\" or \"read-write\""
    )]
    AccessUndecided(SocketAddr),
}

impl Config {
    /// Zero configuration but for the data directory: both loopbacks, port 5000.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            ..Self::default()
        }
    }

    /// Whether it says by itself who may do what. Else that hangs on the accounts in the database, and a server without
    /// any lets everybody in.
    pub fn decides_access(&self) -> bool {
        self.access.is_decided() || self.token.external.is_some() || !self.oidc.is_empty()
    }

    /// Checks what no single value shows. Every section has its own.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require(!self.data_dir.as_os_str().is_empty(), "data_dir", "is missing")?;
        require(!self.listen.is_empty(), "listen", "names no address")?;
        self.log.validate()?;
        self.traces.validate()?;
        self.database.validate()?;
        self.access.validate(self.decides_access(), &self.listen)?;
        self.token.validate()?;
        for provider in &self.oidc {
            provider.validate()?;
        }
        if let Some(tls) = &self.tls {
            tls.validate()?;
        }
        self.storage.validate()?;
        self.policies.iter().try_for_each(Policy::validate)?;
        self.limits.validate()?;
        self.verify.validate()?;
        WebhookConfig::validate(&self.webhooks)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![
                SocketAddr::from(([127, 0, 0, 1], 5000)),
                SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 5000)),
            ],
            data_dir: PathBuf::new(),
            public_hosts: Vec::new(),
            sparse_indexes: false,
            log: LogConfig::default(),
            traces: TracesConfig::default(),
            database: DatabaseConfig::default(),
            access: AccessConfig::default(),
            storage: StorageConfig::default(),
            token: TokenConfig::default(),
            oidc: Vec::new(),
            tls: None,
            limits: Limits::default(),
            read_only: false,
            policies: Vec::new(),
            verify: VerifyConfig::default(),
            webhooks: Vec::new(),
            worker: None,
        }
    }
}

/// For the checks of the sections: what must hold, of which key, and what is wrong otherwise.
fn require(holds: bool, key: &'static str, problem: impl Into<String>) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }
    Err(ConfigError::Value {
        key,
        problem: problem.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_need_a_data_directory() {
        Config::new("/data").validate().unwrap();
        let error = Config::default().validate().unwrap_err();
        assert_eq!(error.to_string(), "data_dir: is missing");
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        type Break = fn(&mut Config);
        let broken: [(Break, &str); 4] = [
            (|config| config.listen.clear(), "listen"),
            (
                |config| config.limits.connections_max = 0,
                "limits.connections_max",
            ),
            (|config| config.log.level = "loud=".to_owned(), "log.level"),
            (
                |config| config.limits.upload_idle_max = config.limits.upload_age_max * 2,
                "limits.upload_idle_max",
            ),
        ];
        for (breaking, key) in broken {
            let mut config = Config::new("/data");
            breaking(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.starts_with(key), "{key}: {error}");
        }
    }
}
