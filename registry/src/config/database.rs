//! `[database]`

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use url::Url;

use super::{ConfigError, require, units};

/// Where metadata is kept.
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `postgres://user:password@host:port/database`, which any number of replicas share. None: SQLite in the data
    /// directory.
    #[serde(serialize_with = "without_password", skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Connections of this process to PostgreSQL at once.
    pub connections_max: u32,
    /// How long a request waits for a server that restarts, or for a free connection.
    #[serde(with = "units::time")]
    pub wait_max: Duration,
    /// When PostgreSQL has left a transaction without an answer for so long, its connections are given up and made anew:
    /// its machine may be gone. A single statement has four fifths of it.
    #[serde(with = "units::time")]
    pub silence_max: Duration,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            url: None,
            connections_max: 16,
            wait_max: Duration::from_secs(10),
            silence_max: Duration::from_secs(30),
        }
    }
}

impl DatabaseConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if let Some(url) = &self.url {
            let scheme = Url::parse(url).map(|url| url.scheme().to_owned());
            let known = matches!(scheme.as_deref(), Ok("postgres" | "postgresql"));
            // Not shown: it may hold a password.
            let problem = "is no URL such as postgres://user:password@host/database";
            require(known, "database.url", problem)?;
        }
        require(self.connections_max > 0, "database.connections_max", "is 0")?;
        require(!self.wait_max.is_zero(), "database.wait_max", "is 0")?;
        let short = Duration::from_secs(1);
        require(
            self.silence_max >= short,
            "database.silence_max",
            "is less than 1s",
        )
    }

    fn shown_url(&self) -> Option<String> {
        self.url.as_deref().map(hide_password)
    }
}

impl fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseConfig")
            .field("url", &self.shown_url())
            .field("connections_max", &self.connections_max)
            .field("wait_max", &self.wait_max)
            .field("silence_max", &self.silence_max)
            .finish()
    }
}

fn without_password<S: Serializer>(url: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    url.as_deref().map(hide_password).serialize(serializer)
}

fn hide_password(url: &str) -> String {
    let Ok(mut parsed) = Url::parse(url) else {
        return "hidden".to_owned();
    };
    let pairs: Vec<(String, String)> = parsed.query_pairs().into_owned().collect();
    if pairs.iter().any(|(key, _)| key == "password") {
        let kept = pairs.iter().filter(|(key, _)| key != "password");
        parsed.query_pairs_mut().clear().extend_pairs(kept);
    }
    if parsed.password().is_none() || parsed.set_password(Some("hidden")).is_ok() {
        return parsed.to_string();
    }
    "hidden".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for url in [
            "postgres://user:secret@host/name",
            "postgres://user@host/name?password=secret&host=/run",
        ] {
            let config = DatabaseConfig {
                url: Some(url.to_owned()),
                ..DatabaseConfig::default()
            };
            config.validate().unwrap();
            let shown = serde_json::to_string(&config).unwrap() + &format!("{config:?}");
            assert!(shown.contains("host") && !shown.contains("secret"), "{shown}");
        }
    }

    #[test]
    fn only_urls_of_postgresql_are_taken() {
        for url in ["mysql://host/name", "host=/run", "secret"] {
            let config = DatabaseConfig {
                url: Some(url.to_owned()),
                ..DatabaseConfig::default()
            };
            let error = config.validate().unwrap_err().to_string();
            assert!(
                error.starts_with("database.url") && !error.contains("secret"),
                "{error}"
            );
        }
    }
}
