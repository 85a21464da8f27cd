//! The server's configuration: flags, then environment variables, then the TOML file, then defaults.
//!
//! Each source becomes a TOML table that is checked on its own, so that an error names its source; the tables laid over
//! each other are then read into [`registry::Config`], which checks the whole.

mod reference;
mod sources;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use toml::Table;

use crate::args::{ConfigCommand, ServeArgs};
use crate::failure::Usage;
use crate::{dirs, output};

/// `layeryard config`.
pub(crate) fn run(command: ConfigCommand) -> anyhow::Result<()> {
    match command {
        ConfigCommand::Check(args) => {
            resolve(args)?;
            output::note("the configuration is valid");
        }
        ConfigCommand::Show(args) => {
            let text = toml::to_string(&resolve(args)?).context("cannot write the configuration as TOML")?;
            output::bytes(text.as_bytes())?;
        }
        ConfigCommand::Reference => output::bytes(reference::TEXT.as_bytes())?,
    }
    Ok(())
}

/// Everything a server needs to know, checked.
pub(crate) fn resolve(args: ServeArgs) -> anyhow::Result<registry::Config> {
    resolve_in(args, std::env::vars())
}

fn resolve_in(
    args: ServeArgs,
    environment: impl Iterator<Item = (String, String)>,
) -> anyhow::Result<registry::Config> {
    let mut merged = Table::new();
    if let Some(path) = &args.config {
        overlay(&mut merged, sources::file(path)?);
    }
    overlay(&mut merged, sources::environment(environment)?);
    overlay(&mut merged, sources::flags(&args)?);
    let mut config: registry::Config = merged
        .try_into()
        .map_err(|error| Usage(format!("configuration: {error}")))?;
    if config.data_dir.as_os_str().is_empty() {
        config.data_dir = dirs::default_data_dir()
            .ok_or_else(|| Usage("no home directory: say where with --data-dir".into()))?;
    }
    config.data_dir = absolute(&config.data_dir)?;
    config
        .validate()
        .map_err(|error| Usage(format!("configuration: {error}")))?;
    Ok(config)
}

fn overlay(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(base)), toml::Value::Table(over)) => overlay(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("data directory {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use registry::{Limits, LogFormat};

    use super::*;

    fn with(
        file: &str,
        environment: &[(&str, &str)],
        mut args: ServeArgs,
    ) -> anyhow::Result<registry::Config> {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), file).unwrap();
        args.config = Some(path.path().to_owned());
        let environment = environment
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()));
        resolve_in(args, environment)
    }

    #[test]
    fn flags_win_over_the_environment_over_the_file_over_defaults() {
        let file = "listen = ['127.0.0.1:1']\ndata_dir = '/a'\n[log]\nformat = 'json'\nlevel = 'warn'\n\
                    [limits]\nupload_idle_max = '5m'\nreview_delay = '1h'";
        let environment = [
            ("LAYERYARD_DATA_DIR", "/b"),
            ("LAYERYARD_LOG__LEVEL", "debug"),
            ("LAYERYARD_LIMITS__UPLOAD_IDLE_MAX", "6m"),
            ("LAYERYARD_LIMITS__CONNECTIONS_MAX", "7"),
            ("LAYERYARD_PORT_5000_TCP", "tcp://10.0.0.1"),
        ];
        let args = ServeArgs {
            listen: vec!["127.0.0.1:2".into()],
            set: vec!["limits.upload_idle_max=7m".into()],
            ..ServeArgs::default()
        };
        let config = with(file, &environment, args).unwrap();
        assert_eq!(config.listen, ["127.0.0.1:2".parse().unwrap()]);
        assert_eq!(config.data_dir, Path::new("/b"));
        assert_eq!(
            (config.log.format, config.log.level.as_str()),
            (LogFormat::Json, "debug")
        );
        assert_eq!(config.limits.upload_idle_max, Duration::from_secs(420));
        assert_eq!(config.limits.review_delay, Duration::from_secs(3600));
        assert_eq!(config.limits.connections_max, 7);
        assert_eq!(config.limits.delete_delay, Limits::default().delete_delay);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_source() {
        let none = ServeArgs::default();
        let set = |text: &str| ServeArgs {
            set: vec![text.into()],
            ..ServeArgs::default()
        };
        let cases = [
            (
                with("listne = []", &[], none.clone()),
                vec!["listne", "file /", "\"listen\""],
            ),
            (
                with("[limits]\nupload_idle = '5m'", &[], none.clone()),
                vec!["limits.upload_idle_max"],
            ),
            (
                with("[limit]\nupload_idle_max = '5m'", &[], none.clone()),
                vec!["\"limits\""],
            ),
            (
                with("[access]\nanonymous = 'all'", &[], none.clone()),
                vec!["file /", "anonymous"],
            ),
            (
                with("[limits]\nupload_idle_max = 'soon'", &[], none.clone()),
                vec!["upload_idle_max", "soon"],
            ),
            (
                with("[limits]\nmanifest_size_max = 4", &[], none.clone()),
                vec!["manifest_size_max", "4MiB"],
            ),
            (
                with("", &[("LAYERYARD_LOG__LEVLE", "x")], none.clone()),
                vec!["LAYERYARD_LOG__LEVLE", "LAYERYARD_LOG__LEVEL"],
            ),
            (
                with("", &[("LAYERYARD_LIMITS__REVIEW_DELAY", "x")], none.clone()),
                vec!["LAYERYARD_LIMITS__REVIEW_DELAY"],
            ),
            (
                with("", &[], set("limits.review_dealy=1h")),
                vec!["--set", "limits.review_delay"],
            ),
            (with("", &[], set("review")), vec!["--set", "KEY=VALUE"]),
            (
                with("[limits]\nconnections_max = 0", &[], none.clone()),
                vec!["limits.connections_max"],
            ),
            (with("listen = ['0.0.0.0:0']", &[], none), vec!["anonymous"]),
        ];
        for (result, parts) in cases {
            let error = result.unwrap_err();
            assert!(error.is::<Usage>(), "{error:?}");
            let error = error.to_string();
            for part in parts {
                assert!(error.contains(part), "{part} not in: {error}");
            }
        }
    }

    #[test]
    fn what_is_shown_is_a_valid_file_that_says_the_same() {
        let config = with(
            "[limits]\nmanifest_size_max = '5000B'\nreview_delay = '90s'",
            &[],
            ServeArgs::default(),
        );
        let config = config.unwrap();
        let text = toml::to_string(&config).unwrap();
        let again = with(&text, &[], ServeArgs::default()).unwrap();
        assert_eq!(format!("{config:?}"), format!("{again:?}"));
    }
}
