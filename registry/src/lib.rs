//! The registry: the OCI distribution API and the build API over a content-addressed store.
//!
//! Four layers, each knowing only the next: [`http`] turns requests into typed calls and errors into answers;
//! [`service`] is what a registry does, without HTTP; [`storage`] keeps bytes under names that are never reused;
//! [`metadata`] keeps everything else. A blob is visible when its row is committed, which happens after its bytes are
//! durable.

mod backup;
mod config;
mod http;
mod listen;
mod lock;
mod metadata;
mod rebuild;
mod report;
mod server;
mod service;
mod storage;
mod timings;
mod tls;
mod traces;
mod watch;

pub use backup::{BackupError, Copied, backup, restore};
pub use config::{
    AccessConfig, Anonymous, ClientCertificate, Config, ConfigError, DatabaseConfig, ExternalTokenConfig,
    Grant, Limits, LogConfig, LogFormat, MetricsAccess, Network, OidcConfig, OidcGrant, Policy, Quota,
    Retention, S3Config, Secret, StorageBackend, StorageConfig, Subject, SubjectError, TagPattern, TlsConfig,
    TokenConfig, TracesConfig, VerifyConfig, WebhookConfig, WorkerCommand,
};
pub use rebuild::{Rebuilt, rebuild_metadata};
pub use server::{ServeError, Server};
pub use tls::TlsError;
pub use traces::TARGET as TRACES_TARGET;
