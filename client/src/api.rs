//! The JSON of `/api/v1`: builds, contexts, jobs, cache records and image resolution.
//!
//! | Call | Who | Request → answer |
//! |---|---|---|
//! | `POST /api/v1/contexts` | user | tar stream → 201 [`ContextCreated`] |
//! | `GET /api/v1/contexts/{id}` | worker | → tar stream |
//! | `POST /api/v1/builds` | user | [`BuildRequest`] → 201 [`BuildCreated`] |
//! | `GET /api/v1/builds` / `GET /api/v1/builds/{id}` | user | → [`BuildStatus`] (a list) |
//! | `GET /api/v1/builds/{id}/events?after=SEQ` | user | → NDJSON stream of [`NumberedEvent`], ends with the build; empty lines keep it alive |
//! | `DELETE /api/v1/builds/{id}` | user | → 202, cancels |
//! | `POST /api/v1/jobs/lease` | worker | [`LeaseRequest`], waits up to 30 s → 200 [`Job`] or 204 |
//! | `POST /api/v1/builds/{id}/events` | worker | [`EventBatch`] → 200 [`Control`] |
//! | `GET /api/v1/builds/{id}/control?wait_seconds=N` | worker | waits for a cancel → [`Control`] |
//! | `POST /api/v1/builds/{id}/result` | worker | [`BuildOutcome`] → 204 |
//! | `POST /api/v1/images/resolve` | worker, user | [`ResolveRequest`] → [`ResolvedReference`] |
//! | `POST /api/v1/repositories/{name}/cache/lookup` | worker | [`CacheLookup`] → [`CacheFound`] |
//! | `PUT /api/v1/repositories/{name}/cache/{key}` | worker | [`CacheRecord`] → 204 |
//! | `POST /api/v1/repositories/{name}/memos/lookup` | worker | [`CacheLookup`] → [`MemosFound`] |
//! | `PUT /api/v1/repositories/{name}/memos/{key}` | worker | JSON string → 204 |
//!
//! Errors are [`ErrorBody`], as under `/v2`. When a build ends or is cancelled its token is revoked: a worker that gets a
//! 401 for a build's call drops that build. A worker waits on `control` all the time; silence means that it is gone.
//! Cache and memo keys are 64 lower-case hex digits on the wire.

pub mod accounts;
pub mod collection;
pub mod verify;

use std::collections::BTreeMap;

use oci::{Descriptor, Digest, Platform, RepoName, Tag};
use serde::{Deserialize, Serialize};

/// The environment in which the server starts its worker.
pub const WORKER_SOCKET_ENV: &str = "LAYERYARD_WORKER_SOCKET";
pub const WORKER_TOKEN_ENV: &str = "LAYERYARD_WORKER_TOKEN";
pub const WORKER_STATE_ENV: &str = "LAYERYARD_WORKER_STATE_DIR";

/// `{"errors":[{"code","message","detail"}]}` (distribution spec, "Error Codes").
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    pub errors: Vec<ErrorItem>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorItem {
    pub code: String,
    #[serde(default)]
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<serde_json::Value>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContextCreated {
    pub id: String,
    pub size_bytes: u64,
}

/// What a user asks to be built.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildRequest {
    /// A context's id; none for a Dockerfile that copies nothing from it.
    #[serde(default)]
    pub context: Option<String>,
    pub dockerfile: SourceFile,
    /// Where the image goes. The first one's repository also keeps the layers and the step cache. Empty: the image is
    /// stored by digest in the repository `untagged`.
    #[serde(default)]
    pub tags: Vec<TagTarget>,
    #[serde(default)]
    pub target: Option<String>,
    #[serde(default)]
    pub build_args: BTreeMap<String, String>,
    #[serde(default)]
    pub no_cache: bool,
    /// The platform of the image; the worker's own by default.
    #[serde(default)]
    pub platform: Option<Platform>,
    /// Credentials for upstream registries by host (`docker.io`, `ghcr.io`, `127.0.0.1:5001`), used for this build's
    /// `FROM` alone and never stored.
    #[serde(default)]
    pub credentials: BTreeMap<String, Credential>,
    /// Goes on when nobody reads the events.
    #[serde(default)]
    pub detached: bool,
}

/// A text file with the name by which messages call it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    pub name: String,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagTarget {
    pub repository: RepoName,
    pub tag: Tag,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    Basic {
        username: String,
        password: String,
    },
    /// An OAuth2 refresh token ("identity token" in Docker's configuration).
    IdentityToken(String),
}

impl std::fmt::Debug for Credential {
    /// Names the kind, never the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Basic { username, .. } => write!(f, "Basic({username})"),
            Self::IdentityToken(_) => f.write_str("IdentityToken"),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BuildCreated {
    pub id: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BuildStatus {
    pub id: String,
    pub state: BuildState,
    pub tags: Vec<TagTarget>,
    /// RFC 3339, UTC.
    pub created_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<BuildOutcome>,
    /// The number of the newest event.
    pub last_seq: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildState {
    Queued,
    Running,
    Finished,
}

/// How a build ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum BuildOutcome {
    Succeeded {
        repository: RepoName,
        digest: Digest,
        size_bytes: u64,
    },
    Failed {
        /// `dockerfile` (the user's file), `step` (a RUN's exit), `image` (a base), `internal`, `builder_crashed`, `unavailable`.
        kind: String,
        message: String,
        /// The exit code of the failed RUN.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
    },
    Cancelled,
}

/// One line of the event stream. `event` is the builder's own (crate `builder`, `event.rs`); the registry adds the number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NumberedEvent {
    pub seq: u64,
    /// Milliseconds since 1970, the server's clock.
    pub at_ms: u64,
    pub event: serde_json::Value,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventBatch {
    /// How many events the worker has sent before, so that a repeated batch is taken once.
    pub first: u64,
    pub events: Vec<serde_json::Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    pub cancelled: bool,
}

/// A worker that asks for work tells about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRequest {
    pub version: String,
    /// What a RUN needs and the worker lacks, each a sentence with its remedy. Empty: it can build.
    #[serde(default)]
    pub missing: Vec<String>,
}

/// A leased build, all that a worker is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    pub build: String,
    /// Valid for this build until it ends: pull anywhere the user may, push and cache in `push` alone.
    pub token: String,
    /// Keeps layers and step cache.
    pub repository: RepoName,
    pub request: BuildRequest,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResolveRequest {
    /// As the user wrote it: `debian:12`, `localhost:5000/app`, `ghcr.io/x/y@sha256:…`.
    pub reference: String,
    pub platform: Platform,
}

/// An image that is in this registry now, fetched from its upstream if it had to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedReference {
    pub repository: RepoName,
    /// What the reference names: a manifest, or an index that lists it.
    pub digest: Digest,
    /// The manifest for the platform asked for.
    pub manifest: Digest,
    /// Where it came from; none: it is this registry's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// What the user should know: the upstream could not be asked and an image fetched earlier is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CacheLookup {
    pub keys: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CacheFound {
    pub records: BTreeMap<String, CacheRecord>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemosFound {
    pub memos: BTreeMap<String, String>,
}

/// The result of a step, kept under the step's key. The registry keeps `layer` alive as long as the record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CacheRecord {
    pub layer: Descriptor,
    /// What else the builder wants to know again (diff id, layer time, inputs …); opaque to the registry.
    pub result: serde_json::Value,
}
