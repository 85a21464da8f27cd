//! Distribution v3 as another registry on this machine: open, behind Basic authentication, or behind a token server.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use super::paths;
use super::token_server::TokenServer;
use super::tool::Tool;

pub(crate) const USER: &str = "robot";
pub(crate) const PASSWORD: &str = "secret";
/// bcrypt of [`PASSWORD`], the only form that distribution reads.
const HTPASSWD: &str = "robot:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

const START_SECONDS_MAX: u64 = 30;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Open,
    Basic,
    /// Anonymous tokens read `public/…`; those of [`USER`] do everything.
    Token,
}

pub(crate) struct Upstream {
    child: Child,
    address: SocketAddr,
    dir: TempDir,
    /// Serves until this registry is dropped.
    _tokens: Option<TokenServer>,
}

impl Upstream {
    pub(crate) fn start(access: Access) -> Self {
        Self::start_with(access, "")
    }

    /// With more lines of configuration.
    pub(crate) fn start_with(access: Access, more: &str) -> Self {
        let dir = paths::scratch();
        let address = free_address();
        let tokens = (access == Access::Token).then(|| TokenServer::start(dir.path()));
        let auth = match (access, &tokens) {
            (Access::Basic, _) => {
                fs::write(dir.path().join("htpasswd"), HTPASSWD).expect("write htpasswd");
                format!(
                    "auth: {{htpasswd: {{realm: peer, path: {}}}}}\n",
                    dir.path().join("htpasswd").display()
                )
            }
            (_, Some(tokens)) => tokens.distribution_config(),
            (_, None) => String::new(),
        };
        let storage = dir.path().join("storage");
        let config = format!(
            "version: 0.1\nlog: {{accesslog: {{disabled: false}}}}\nhttp: {{addr: {address}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n{auth}{more}",
            storage.display()
        );
        fs::write(dir.path().join("config.yml"), config).expect("write distribution's configuration");
        let log = File::create(dir.path().join("log")).expect("make distribution's log");
        let child = Command::new(paths::peer("distribution", "distribution"))
            .arg("serve")
            .arg(dir.path().join("config.yml"))
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("duplicate the log"))
            .stderr(log)
            .spawn()
            .expect("start distribution");
        let upstream = Self {
            child,
            address,
            dir,
            _tokens: tokens,
        };
        upstream.await_start();
        upstream
    }

    /// `127.0.0.1:PORT`, as image names begin.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A Docker configuration with the credentials of [`USER`] for this registry.
    pub(crate) fn write_docker_config(&self, dir: &Path) {
        self.write_docker_config_of(dir, PASSWORD);
    }

    pub(crate) fn write_docker_config_of(&self, dir: &Path, password: &str) {
        let auth = STANDARD.encode(format!("{USER}:{password}"));
        let config = serde_json::json!({"auths": {self.host(): {"auth": auth}}});
        fs::create_dir_all(dir)
            .and_then(|()| fs::write(dir.join("config.json"), config.to_string()))
            .expect("write config.json");
    }

    /// skopeo with the rights to push here.
    pub(crate) fn skopeo_copy(&self, from: &str, name: &str) {
        let credentials = format!("{USER}:{PASSWORD}");
        Tool::debian("skopeo")
            .args([
                "--insecure-policy",
                "copy",
                "--all",
                "--src-tls-verify=false",
                "--dest-tls-verify=false",
            ])
            .args([
                "--dest-creds",
                &credentials,
                from,
                &format!("docker://{}/{name}", self.host()),
            ])
            .ok();
    }

    /// How often something was asked for: requests of the access log that contain this text.
    pub(crate) fn requests(&self, text: &str) -> usize {
        let log = fs::read_to_string(self.dir.path().join("log")).expect("read distribution's log");
        log.lines()
            .filter(|line| line.contains("HTTP/1.1\"") && line.contains(text))
            .count()
    }

    fn await_start(&self) {
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        while TcpStream::connect(self.address).is_err() {
            let log = || fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(
                Instant::now() < deadline,
                "distribution does not start\n{}",
                log()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address that was free a moment ago; distribution does not tell which port it took itself.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("the port's number")
}
