//! `layeryard serve`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Deserialize;

const HELP: &str = "\
Flags go before environment variables, those before the file, that before the defaults.

Configuration file (TOML; every key is optional, unknown ones are refused):
  listen = [\"127.0.0.1:5000\", \"[::1]:5000\"]  # default: both loopbacks
  data_dir = \"/var/lib/layeryard\"
  public_hosts = [\"registry.example.com\"]     # other names by which FROM means this server
  sparse_indexes = false         # accept an index whose manifests are not all here

  [log]
  format = \"text\"            # or \"json\"
  level = \"info\"             # error, warn, info, debug, trace, or as in RUST_LOG

  [access]
  anonymous = \"read-only\"    # or \"read-write\"; needed for addresses beyond loopback

  [limits]                   # the defaults
  manifest_size_max = \"4MiB\"
  upload_idle_max = \"24h\"    # an upload without a request for this long is dropped
  upload_age_max = \"7d\"      # an upload older than this is dropped
  undelete_window = \"7d\"     # how long deleted tags and manifests can be restored
  review_delay = \"24h\"       # how long a fresh blob may wait for its manifest
  delete_delay = \"1h\"        # how long an object outlives its last reference
  shutdown_grace = \"30s\"     # how long a stopping server waits for transfers
  header_read_max = \"75s\"    # how long a client may be silent before a request's head
  connections_max = 16384

Examples:
  layeryard serve
  layeryard serve --listen 127.0.0.1:5001 --data-dir ./data
  layeryard serve --config /etc/layeryard/layeryard.toml --log-format json";

#[derive(Args, Clone, Debug, Default)]
#[command(after_help = HELP)]
pub(crate) struct ServeArgs {
    /// Address to listen on, repeatable; port 0 takes a free one [default: 127.0.0.1:5000 and [::1]:5000]
    #[arg(
        long,
        env = "LAYERYARD_LISTEN",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "ADDR"
    )]
    pub(crate) listen: Vec<String>,
    /// Directory of all data [default: /var/lib/layeryard as root, else $XDG_DATA_HOME/layeryard]
    #[arg(long, env = "LAYERYARD_DATA_DIR", hide_env_values = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Configuration file, TOML
    #[arg(long, env = "LAYERYARD_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Form of the log on standard error: text or json [default: text]
    #[arg(
        long,
        env = "LAYERYARD_LOG_FORMAT",
        hide_env_values = true,
        value_enum,
        hide_possible_values = true,
        value_name = "FORMAT"
    )]
    pub(crate) log_format: Option<LogFormat>,
    /// What is logged: error, warn, info, debug, trace, or per module as in RUST_LOG [default: info]
    #[arg(
        long,
        env = "LAYERYARD_LOG_LEVEL",
        hide_env_values = true,
        value_name = "LEVEL"
    )]
    pub(crate) log_level: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}
