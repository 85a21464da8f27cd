//! How Layeryard is set up for a measurement.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::disk::Disk;
use crate::process::{Server, free_address};
use crate::servers::Programs;

/// As users run it: no configuration, log and metrics on.
pub(crate) const LAYERYARD: &str = "layeryard";
/// Every request says who it is of, and is asked what it may do.
pub(crate) const LAYERYARD_ACCESS: &str = "layeryard, access on";

/// `Basic` of the user and the password that `HTPASSWD` knows.
const AUTHORIZATION: &str = "Basic YmVuY2g6bWVhc3VyZWQ=";
/// What `htpasswd -B` writes for `bench` with the password `measured`.
const HTPASSWD: &str = "bench:$2b$05$abcdefghijklmnopqrstuu8rP6CrQ1kx.2MCeNtMQmWv2SYDNGsae\n";

/// Other teams' grants, which are in the way as they are anywhere.
const OTHER_TEAMS: usize = 20;

/// A server that can be started again on its data.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    program: PathBuf,
    name: &'static str,
    directory: PathBuf,
    access: bool,
    settings: Vec<String>,
}

impl Setup {
    /// A server whose data will be in this directory of the disk.
    pub(crate) fn new(programs: &Programs, disk: &Disk, name: &'static str, directory: &str) -> Self {
        Self {
            program: programs.layeryard.clone(),
            name,
            directory: disk.root().join(directory),
            access: false,
            settings: Vec::new(),
        }
    }

    pub(crate) fn with_access(mut self) -> Self {
        self.access = true;
        self
    }

    /// Keys of the configuration and their values.
    pub(crate) fn with(mut self, settings: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let settings = settings.into_iter().map(|(key, value)| format!("{key}={value}"));
        self.settings.extend(settings);
        self
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub(crate) fn start(&self) -> Result<Server> {
        let directory = &self.directory;
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let address = free_address()?;
        let mut command = Command::new(&self.program);
        command
            .args(["serve", "--listen", &address.to_string(), "--data-dir"])
            .arg(self.data());
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        if self.access {
            fs::write(directory.join("htpasswd"), HTPASSWD)?;
            let configuration = directory.join("layeryard.toml");
            fs::write(&configuration, access_configuration(&directory.join("htpasswd")))?;
            command.arg("--config").arg(configuration);
        }
        let server = Server::start(self.name, address, &command, &directory.join("log"), "/v2/")?;
        Ok(if self.access {
            server.with_authorization(AUTHORIZATION)
        } else {
            server
        })
    }
}

impl Programs {
    pub(crate) fn layeryard(&self, disk: &Disk) -> Result<Server> {
        Setup::new(self, disk, LAYERYARD, "layeryard").start()
    }

    pub(crate) fn layeryard_with_access(&self, disk: &Disk) -> Result<Server> {
        Setup::new(self, disk, LAYERYARD_ACCESS, "layeryard-access")
            .with_access()
            .start()
    }
}

/// Nobody may do anything without a grant; the bench has one as member of a group.
fn access_configuration(htpasswd: &Path) -> String {
    let others: String = (0..OTHER_TEAMS)
        .map(|number| grant(&format!("user:user{number}"), &format!("team{number}/**")))
        .collect();
    let htpasswd = htpasswd.display();
    let own = grant("group:measured", "bench/**");
    format!(
        "[access]
anonymous = \"none\"
htpasswd = \"{htpasswd}\"
groups = {{ measured = [\"alice\", \"bench\"] }}
{others}{own}"
    )
}

fn grant(subject: &str, repositories: &str) -> String {
    format!(
        "
[[access.grant]]
subject = \"{subject}\"
repositories = [\"{repositories}\"]
actions = [\"pull\", \"push\", \"delete\"]
"
    )
}
