//! Other registries in place of the one under test, for `tests/peers/against.sh`: what fails there is either a difference
//! or a test that wants more than the specification says.

use std::env;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use super::paths;

#[derive(Clone, Copy)]
pub(super) enum Peer {
    /// Debian's docker-registry, 2.8.
    DockerRegistry,
    /// Distribution v3.
    Distribution,
}

impl Peer {
    /// The one that `LAYERYARD_TESTS_AGAINST` names.
    pub(super) fn chosen() -> Option<Self> {
        match env::var("LAYERYARD_TESTS_AGAINST").ok()?.as_str() {
            "docker-registry" => Some(Self::DockerRegistry),
            "distribution" => Some(Self::Distribution),
            other => panic!("LAYERYARD_TESTS_AGAINST: no registry {other:?}"),
        }
    }

    /// A registry over a directory below `dir`.
    pub(super) fn command(self, dir: &Path, address: SocketAddr) -> Command {
        let config = dir.join("peer.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: warn}}\nhttp: {{addr: {address}, secret: tests}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n",
            dir.join("data").display()
        );
        fs::write(&config, text).expect("write the registry's configuration");
        let mut command = match self {
            Self::DockerRegistry => Command::new(paths::debian("docker-registry")),
            Self::Distribution => Command::new(paths::peer("distribution", "distribution")),
        };
        command.arg("serve").arg(config);
        command.env("OTEL_TRACES_EXPORTER", "none");
        command
    }

    pub(super) fn answers(address: SocketAddr) -> bool {
        TcpStream::connect(address).is_ok()
    }
}
