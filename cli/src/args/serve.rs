//! `layeryard serve`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

const HELP: &str = "\
Flags go before environment variables (LAYERYARD_SECTION__KEY), those before the file, that before the defaults.
Every key of the file: layeryard config reference

Examples:
  layeryard serve
  layeryard serve --listen 127.0.0.1:5001 --data-dir ./data --set limits.upload_idle_max=1h
  layeryard serve --config /etc/layeryard/layeryard.toml --log-format json";

#[derive(Args, Clone, Debug, Default)]
#[command(after_help = HELP)]
pub(crate) struct ServeArgs {
    /// Address to listen on, repeatable; port 0 takes a free one [default: 127.0.0.1:5000 and [::1]:5000]
    #[arg(long, value_delimiter = ',', value_name = "ADDR")]
    pub(crate) listen: Vec<String>,
    /// Directory of all data [default: /var/lib/layeryard as root, else $XDG_DATA_HOME/layeryard]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Configuration file, TOML
    #[arg(long, env = "LAYERYARD_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Form of the log on standard error: text or json [default: text]
    #[arg(long, value_enum, hide_possible_values = true, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// What is logged: error, warn, info, debug, trace, or per module as in RUST_LOG [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// Any key of the configuration, repeatable: --set log.level=debug
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

impl LogFormat {
    /// As the configuration has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}
