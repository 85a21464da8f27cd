//! `[[webhooks]]`

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, Secret, require, units};

/// Somebody who is told what happens.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Deliveries that wait belong to this name.
    pub name: String,
    pub url: String,
    /// Sent with every delivery; their values are secrets.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// How long an answer may take.
    #[serde(default = "timeout", with = "units::time")]
    pub timeout: Duration,
    /// The delay after the first failure; doubled with each, up to five minutes.
    #[serde(default = "backoff", with = "units::time")]
    pub backoff: Duration,
    /// After so many failures a delivery is given up.
    #[serde(default = "attempts_max")]
    pub attempts_max: u32,
    /// `push`, `delete`, `pull`, `mount`; empty: the first two.
    #[serde(default)]
    pub actions: BTreeSet<String>,
    /// Also tell of single blobs.
    #[serde(default)]
    pub blobs: bool,
    /// Repositories, or prefixes that end in `*`; empty: all.
    #[serde(default)]
    pub repositories: Vec<String>,
    /// Media types that are of no interest; blobs are `application/octet-stream`.
    #[serde(default)]
    pub ignore_media_types: Vec<String>,
}

const ACTIONS: [&str; 4] = ["push", "delete", "pull", "mount"];

fn timeout() -> Duration {
    Duration::from_secs(5)
}

fn backoff() -> Duration {
    Duration::from_secs(1)
}

fn attempts_max() -> u32 {
    1000
}

impl WebhookConfig {
    pub(super) fn validate(all: &[Self]) -> Result<(), ConfigError> {
        let mut names = BTreeSet::new();
        for hook in all {
            let of = |problem: &str| format!("{:?} {problem}", hook.name);
            require(
                !hook.name.is_empty() && names.insert(&hook.name),
                "webhooks.name",
                of("must be given, and only once"),
            )?;
            let fine = url::Url::parse(&hook.url)
                .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            require(fine, "webhooks.url", of("needs an http:// or https:// address"))?;
            for action in &hook.actions {
                require(
                    ACTIONS.contains(&action.as_str()),
                    "webhooks.actions",
                    of(&format!("asks for {action:?}: there are {}", ACTIONS.join(", "))),
                )?;
            }
            for (name, value) in &hook.headers {
                require(
                    value.is_header(name),
                    "webhooks.headers",
                    of(&format!("has a malformed header {name:?}")),
                )?;
            }
            require(
                !hook.timeout.is_zero(),
                "webhooks.timeout",
                of("must be longer than 0s"),
            )?;
        }
        Ok(())
    }
}
