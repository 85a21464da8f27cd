//! `[log]`

use serde::{Deserialize, Serialize};

use super::{ConfigError, require};

/// What is logged on standard error, and how.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    pub format: LogFormat,
    /// A filter in the syntax of `RUST_LOG`.
    pub level: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::default(),
            level: "info".to_owned(),
        }
    }
}

impl LogConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let problem = self
            .level
            .split(',')
            .find_map(|directive| refuse(directive.trim()));
        require(problem.is_none(), "log.level", problem.unwrap_or_default())
    }
}

/// What is wrong with one directive: `LEVEL` or `MODULE=LEVEL` (spans and fields in brackets are left to the filter).
fn refuse(directive: &str) -> Option<String> {
    let level = directive
        .rsplit_once('=')
        .map_or(directive, |(_, level)| level)
        .to_ascii_lowercase();
    let known = ["off", "error", "warn", "info", "debug", "trace"];
    // A module alone means all of it.
    let module = !directive.contains('=') && directive.contains("::");
    let fine = module || directive.contains('[') || known.contains(&level.as_str());
    (!fine).then(|| {
        format!(
            "{directive:?} is no filter: expected one of {} or MODULE=LEVEL",
            known.join(", ")
        )
    })
}
