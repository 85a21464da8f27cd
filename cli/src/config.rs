//! The server's configuration: flags, then environment variables, then the TOML file, then defaults.
//!
//! clap merges flags and environment ([`ServeArgs`]); this module reads the file, fills in what is missing, and
//! checks everything, so that a server that starts has a configuration that makes sense.

use std::fmt;
use std::marker::PhantomData;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use registry::{AccessConfig, Anonymous, Limits};
use serde::Deserialize;

use crate::args::{LogFormat, ServeArgs};
use crate::dirs;
use crate::failure::Usage;

const DEFAULT_PORT: u16 = 5000;

/// A server's settings, ready to use.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) registry: registry::Config,
    pub(crate) log: LogSettings,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogSettings {
    pub(crate) format: LogFormat,
    /// A filter in the syntax of `RUST_LOG`.
    pub(crate) level: String,
}

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<Vec<String>>,
    data_dir: Option<PathBuf>,
    #[serde(default)]
    public_hosts: Vec<String>,
    /// Accept an index whose manifests are not all here.
    #[serde(default)]
    sparse_indexes: bool,
    #[serde(default)]
    log: LogFile,
    #[serde(default)]
    access: AccessFile,
    #[serde(default)]
    limits: LimitsFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogFile {
    format: Option<LogFormat>,
    level: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AccessFile {
    anonymous: Option<AnonymousFile>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum AnonymousFile {
    ReadOnly,
    ReadWrite,
}

/// Sizes as `4MiB`, times as `30s`, `24h`, `7d`; [`Limits`] explains each.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsFile {
    manifest_size_max: Option<Text<bytesize::ByteSize>>,
    upload_idle_max: Option<Text<humantime::Duration>>,
    upload_age_max: Option<Text<humantime::Duration>>,
    undelete_window: Option<Text<humantime::Duration>>,
    review_delay: Option<Text<humantime::Duration>>,
    delete_delay: Option<Text<humantime::Duration>>,
    shutdown_grace: Option<Text<humantime::Duration>>,
    header_read_max: Option<Text<humantime::Duration>>,
    connections_max: Option<usize>,
}

impl Settings {
    pub(crate) fn resolve(args: ServeArgs) -> anyhow::Result<Self> {
        let file = args
            .config
            .as_deref()
            .map(File::read)
            .transpose()?
            .unwrap_or_default();
        let listen = if args.listen.is_empty() {
            file.listen.unwrap_or_default()
        } else {
            args.listen
        };
        let data_dir = args.data_dir.or(file.data_dir).or_else(dirs::default_data_dir);
        let data_dir =
            data_dir.ok_or_else(|| Usage("no home directory: say where with --data-dir".into()))?;
        let mut registry = registry::Config::new(absolute(&data_dir)?);
        registry.listen = if listen.is_empty() {
            default_listeners()
        } else {
            addresses(&listen)?
        };
        registry.public_hosts = file.public_hosts;
        registry.sparse_indexes = file.sparse_indexes;
        registry.access = AccessConfig {
            anonymous: file.access.anonymous.map(Into::into),
        };
        registry.limits = file.limits.over(Limits::default());
        let log = LogSettings {
            format: args.log_format.or(file.log.format).unwrap_or_default(),
            level: args.log_level.or(file.log.level).unwrap_or_else(|| "info".into()),
        };
        Ok(Self { registry, log })
    }
}

impl File {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration file {}", path.display()))
            .map_err(|error| error.context(Usage("configuration".into())))?;
        // The parser's message shows the line and the key.
        toml::from_str(&text)
            .map_err(|error| Usage(format!("configuration file {}: {error}", path.display())).into())
    }
}

impl LimitsFile {
    fn over(self, defaults: Limits) -> Limits {
        let time = |value: Option<Text<humantime::Duration>>, default: Duration| {
            value.map_or(default, |value| value.value.into())
        };
        Limits {
            manifest_size_bytes_max: self
                .manifest_size_max
                .map_or(defaults.manifest_size_bytes_max, |size| size.value.as_u64()),
            upload_idle_max: time(self.upload_idle_max, defaults.upload_idle_max),
            upload_age_max: time(self.upload_age_max, defaults.upload_age_max),
            undelete_window: time(self.undelete_window, defaults.undelete_window),
            review_delay: time(self.review_delay, defaults.review_delay),
            delete_delay: time(self.delete_delay, defaults.delete_delay),
            shutdown_grace: time(self.shutdown_grace, defaults.shutdown_grace),
            header_read_max: time(self.header_read_max, defaults.header_read_max),
            connections_max: self.connections_max.unwrap_or(defaults.connections_max),
        }
    }
}

impl From<AnonymousFile> for Anonymous {
    fn from(value: AnonymousFile) -> Self {
        match value {
            AnonymousFile::ReadOnly => Self::ReadOnly,
            AnonymousFile::ReadWrite => Self::ReadWrite,
        }
    }
}

/// Both loopbacks; a machine without IPv6 has one.
fn default_listeners() -> Vec<SocketAddr> {
    let v6 = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], DEFAULT_PORT));
    let has_v6 = TcpListener::bind(SocketAddr::new(v6.ip(), 0)).is_ok();
    let v4 = SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT));
    if has_v6 { vec![v4, v6] } else { vec![v4] }
}

/// `IP:PORT`, `[IP]:PORT`, `HOST:PORT` (all of the host's addresses) or `:PORT` (every address of the machine).
fn addresses(texts: &[String]) -> anyhow::Result<Vec<SocketAddr>> {
    let mut found = Vec::new();
    for text in texts {
        let full = if text.starts_with(':') {
            format!("[::]{text}")
        } else {
            text.clone()
        };
        let resolved = full.to_socket_addrs().map_err(|error| {
            Usage(format!(
                "listen address {text:?}: {error}; expected ADDRESS:PORT, such as 127.0.0.1:5000"
            ))
        })?;
        for address in resolved {
            // Port 0 may be asked for twice; any other address only once.
            if address.port() == 0 || !found.contains(&address) {
                found.push(address);
            }
        }
    }
    Ok(found)
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("data directory {}", path.display()))
}

/// A value that the file holds as text, with a parser whose message names what is wrong.
struct Text<T> {
    value: T,
}

impl<T: fmt::Debug> fmt::Debug for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<'de, T> Deserialize<'de> for Text<T>
where
    T: std::str::FromStr<Err: fmt::Display>,
{
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(PhantomData<T>);
        impl<T: std::str::FromStr<Err: fmt::Display>> serde::de::Visitor<'_> for Visitor<T> {
            type Value = Text<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text such as \"4MiB\" or \"30s\"")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text<T>, E> {
                let value = text
                    .parse()
                    .map_err(|error| E::custom(format!("{text:?}: {error}")))?;
                Ok(Text { value })
            }
        }
        deserializer.deserialize_str(Visitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str, mut args: ServeArgs) -> anyhow::Result<Settings> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        args.config = Some(file.path().to_owned());
        Settings::resolve(args)
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file = "listen = ['127.0.0.1:1']\ndata_dir = '/a'\n[log]\nformat = 'json'\n[limits]\nupload_idle_max = '5m'";
        let args = ServeArgs {
            listen: vec!["127.0.0.1:2".into()],
            ..ServeArgs::default()
        };
        let settings = with_file(file, args).unwrap();
        assert_eq!(settings.registry.listen, ["127.0.0.1:2".parse().unwrap()]);
        assert_eq!(settings.registry.data_dir, Path::new("/a"));
        assert_eq!(
            settings.log,
            LogSettings {
                format: LogFormat::Json,
                level: "info".into()
            }
        );
        assert_eq!(settings.registry.limits.upload_idle_max, Duration::from_secs(300));
        assert_eq!(
            settings.registry.limits.delete_delay,
            Limits::default().delete_delay
        );
    }

    #[test]
    fn a_wrong_file_is_refused_with_its_name_and_key() {
        for (text, message) in [
            ("listne = []", "listne"),
            ("[access]\nanonymous = 'all'", "anonymous"),
            ("[limits]\nupload_idle_max = 'soon'", "upload_idle_max"),
            ("[limits]\nmanifest_size_max = 4", "manifest_size_max"),
        ] {
            let error = with_file(text, ServeArgs::default()).unwrap_err();
            assert!(error.is::<Usage>());
            let error = error.to_string();
            assert!(
                error.contains(message) && error.contains("configuration file /"),
                "{text}: {error}"
            );
        }
    }

    /// What the help shows is what the program reads, and the limits shown are the defaults.
    #[test]
    fn the_helps_example_is_a_valid_file() {
        use clap::CommandFactory as _;
        let command = crate::args::Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        let help = serve.get_after_help().unwrap().to_string();
        let example: String = help
            .lines()
            .skip_while(|line| !line.starts_with("Configuration file"))
            .skip(1)
            .take_while(|line| !line.starts_with("Examples"))
            .flat_map(|line| [line.trim(), "\n"])
            .collect();
        let settings = with_file(&example, ServeArgs::default()).unwrap();
        assert_eq!(
            format!("{:?}", settings.registry.limits),
            format!("{:?}", Limits::default())
        );
        assert_eq!(settings.registry.public_hosts, ["registry.example.com"]);
    }

    #[test]
    fn hosts_and_ports_are_listened_on() {
        let texts = [
            "localhost:7000".to_owned(),
            "127.0.0.1:7000".to_owned(),
            "127.0.0.1:0".to_owned(),
        ];
        let found = addresses(&texts).unwrap();
        assert_eq!(
            found
                .iter()
                .filter(|address| **address == "127.0.0.1:7000".parse().unwrap())
                .count(),
            1
        );
        assert!(found.contains(&"127.0.0.1:0".parse().unwrap()));
        assert!(
            addresses(&["5000".to_owned()])
                .unwrap_err()
                .to_string()
                .contains("ADDRESS:PORT")
        );
    }
}
