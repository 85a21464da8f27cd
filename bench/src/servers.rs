//! How each peer is configured. Everything one keeps is below its own directory of the disk under test.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::disk::Disk;
use crate::process::{Server, free_address};

pub(crate) const NGINX: &str = "nginx";
pub(crate) const DISTRIBUTION: &str = "distribution v3";
pub(crate) const DOCKER_REGISTRY: &str = "docker-registry 2.8";

pub(crate) const DOCKER_REGISTRY_PATH: &str = "/usr/bin/docker-registry";

/// Where the programs are.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) layeryard: PathBuf,
    /// The directory that tests/peers/install.sh fills.
    pub(crate) peers: PathBuf,
}

impl Programs {
    pub(crate) fn distribution_path(&self) -> PathBuf {
        self.peers.join("bin/distribution")
    }

    pub(crate) fn busybox(&self) -> PathBuf {
        self.peers.join("rootfs/busybox.tar")
    }

    /// A run of our own command line.
    pub(crate) fn command(&self) -> Command {
        Command::new(&self.layeryard)
    }

    /// The newest one, from source.
    pub(crate) fn distribution(&self, disk: &Disk) -> Result<Server> {
        distribution(
            &self.distribution_path(),
            DISTRIBUTION,
            &disk.root().join("distribution"),
        )
    }

    /// The one before, as Debian has it.
    pub(crate) fn docker_registry(&self, disk: &Disk) -> Result<Server> {
        distribution(
            Path::new(DOCKER_REGISTRY_PATH),
            DOCKER_REGISTRY,
            &disk.root().join("docker-registry"),
        )
    }

    /// Debian's nginx with sendfile and as many processes as processors. It serves the files below the returned
    /// directory and logs nothing, which favours it.
    pub(crate) fn nginx(&self, disk: &Disk) -> Result<(Server, PathBuf)> {
        let directory = disk.root().join("nginx");
        let root = directory.join("root");
        create(&root)?;
        let address = free_address()?;
        let configuration = directory.join("nginx.conf");
        fs::write(&configuration, nginx_configuration(&directory, &root, address))?;
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&directory).arg("-c").arg(&configuration);
        let server = Server::start(NGINX, address, &command, &directory.join("log"), "/")?;
        Ok((server, root))
    }
}

fn create(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))
}

/// The configuration of its own container image, on another address and directory.
fn distribution(program: &Path, name: &'static str, directory: &Path) -> Result<Server> {
    create(directory)?;
    let address = free_address()?;
    let configuration = directory.join("config.yml");
    fs::write(
        &configuration,
        distribution_configuration(&directory.join("data"), address),
    )?;
    let mut command = Command::new(program);
    command
        .arg("serve")
        .arg(&configuration)
        .env("OTEL_TRACES_EXPORTER", "none");
    Server::start(name, address, &command, &directory.join("log"), "/v2/")
}

fn distribution_configuration(data: &Path, address: SocketAddr) -> String {
    let data = data.display();
    format!(
        "version: 0.1
log:
  fields:
    service: registry
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: {data}
http:
  addr: {address}
  headers:
    X-Content-Type-Options: [nosniff]
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
"
    )
}

fn nginx_configuration(directory: &Path, root: &Path, address: SocketAddr) -> String {
    let (directory, root) = (directory.display(), root.display());
    format!(
        "daemon off;
user root;
worker_processes auto;
pid {directory}/pid;
error_log {directory}/error.log;
events {{ worker_connections 1024; }}
http {{
    sendfile on;
    tcp_nopush on;
    access_log off;
    keepalive_requests 1000000000;
    default_type application/octet-stream;
    client_body_temp_path {directory}/temp-body;
    proxy_temp_path {directory}/temp-proxy;
    fastcgi_temp_path {directory}/temp-fastcgi;
    uwsgi_temp_path {directory}/temp-uwsgi;
    scgi_temp_path {directory}/temp-scgi;
    server {{
        listen {address};
        root {root};
    }}
}}
"
    )
}
