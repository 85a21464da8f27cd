//! `[traces]`

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, Secret, require, units};

/// Where spans are sent, as OpenTelemetry's protocol over HTTP has it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TracesConfig {
    /// A collector's address, before `/v1/traces`. None: nothing is traced.
    pub endpoint: Option<String>,
    /// Sent with every batch; their values are secrets.
    pub headers: BTreeMap<String, Secret>,
    /// How many of the requests are traced that come without a caller's decision.
    pub sample_ratio: f64,
    /// What the traces call this service.
    pub service: String,
    /// How long the collector may take for a batch.
    #[serde(with = "units::time")]
    pub timeout: Duration,
}

impl TracesConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if let Some(endpoint) = &self.endpoint {
            let fine = url::Url::parse(endpoint).is_ok_and(|url| {
                matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none()
            });
            require(
                fine,
                "traces.endpoint",
                format!("{endpoint:?} is no address such as http://127.0.0.1:4318"),
            )?;
        }
        require(
            (0.0..=1.0).contains(&self.sample_ratio),
            "traces.sample_ratio",
            "must be between 0 and 1",
        )?;
        require(!self.service.is_empty(), "traces.service", "is empty")?;
        require(
            !self.timeout.is_zero(),
            "traces.timeout",
            "must be longer than 0s",
        )?;
        for (name, value) in &self.headers {
            require(
                value.is_header(name),
                "traces.headers",
                format!("{name:?} is malformed"),
            )?;
        }
        Ok(())
    }
}

impl Default for TracesConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            headers: BTreeMap::new(),
            sample_ratio: 1.0,
            service: "layeryard".to_owned(),
            timeout: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_collector_could_take_is_refused() {
        type Break = fn(&mut TracesConfig);
        let broken: [(Break, &str); 6] = [
            (
                |traces| traces.endpoint = Some("127.0.0.1:4318".into()),
                "endpoint",
            ),
            (
                |traces| traces.endpoint = Some("grpc://127.0.0.1:4317".into()),
                "endpoint",
            ),
            (|traces| traces.sample_ratio = 1.5, "sample_ratio"),
            (|traces| traces.sample_ratio = f64::NAN, "sample_ratio"),
            (|traces| traces.service.clear(), "service"),
            (|traces| traces.timeout = Duration::ZERO, "timeout"),
        ];
        TracesConfig::default().validate().unwrap();
        for (breaking, key) in broken {
            let mut traces = TracesConfig::default();
            breaking(&mut traces);
            let error = traces.validate().unwrap_err().to_string();
            assert!(error.starts_with(&format!("traces.{key}:")), "{key}: {error}");
        }
        let traces: TracesConfig = serde_json::from_value(serde_json::json!({
            "endpoint": "https://collector.example.com/otlp", "headers": { "x y": "z" },
        }))
        .unwrap();
        let error = traces.validate().unwrap_err().to_string();
        assert!(error.contains("x y"), "{error}");
    }
}
