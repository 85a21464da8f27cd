//! `[access]`

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Who may do what.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessConfig {
    /// What a caller without credentials may do. `None` is no decision: everything, on loopback listeners only.
    pub anonymous: Option<Anonymous>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Anonymous {
    ReadOnly,
    ReadWrite,
}

impl AccessConfig {
    pub(super) fn validate(&self, listen: &[SocketAddr]) -> Result<(), ConfigError> {
        let outside = listen.iter().find(|address| !address.ip().is_loopback());
        match (outside, self.anonymous) {
            (Some(address), None) => Err(ConfigError::AccessUndecided(*address)),
            _ => Ok(()),
        }
    }
}
