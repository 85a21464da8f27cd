//! nginx in front of several servers, round-robin, as an installation has it.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::paths;

const START_SECONDS_MAX: u64 = 10;
const POLL: Duration = Duration::from_millis(10);

pub(crate) struct Balancer {
    child: Child,
    address: SocketAddr,
    dir: TempDir,
}

impl Balancer {
    pub(crate) fn start(servers: &[SocketAddr]) -> Self {
        Self::start_with(servers, "")
    }

    /// Ends TLS, as most installations do it: the servers behind it speak plain HTTP.
    pub(crate) fn start_encrypted(servers: &[SocketAddr], certificate: &Path, key: &Path) -> Self {
        let (certificate, key) = (certificate.display(), key.display());
        let tls = format!("ssl_certificate {certificate}; ssl_certificate_key {key};");
        Self::start_with(servers, &tls)
    }

    fn start_with(servers: &[SocketAddr], tls: &str) -> Self {
        let dir = paths::scratch();
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = address.expect("a free port");
        let config = dir.path().join("nginx.conf");
        fs::write(&config, configuration(address, servers, tls)).expect("write nginx.conf");
        let child = Command::new(paths::debian("nginx"))
            .arg("-p")
            .arg(dir.path())
            .arg("-c")
            .arg(&config)
            .arg("-e")
            .arg(dir.path().join("error.log"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start nginx");
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "nginx does not listen");
            thread::sleep(POLL);
        }
        Self { child, address, dir }
    }

    /// What came by that contains this text: lines of method, path with query, and status.
    pub(crate) fn requests(&self, text: &str) -> Vec<String> {
        let log = fs::read_to_string(self.dir.path().join("access.log")).expect("read nginx's log");
        let lines = log.lines().filter(|line| line.contains(text));
        lines.map(str::to_owned).collect()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // One process (`master_process off`): nothing outlives it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The settings of docker-compose.yml's balancer: bodies pass through as they come, of any size; a replica that does not
/// answer is left out for a moment, and a request that it has not begun to answer goes to the next one.
fn configuration(address: SocketAddr, servers: &[SocketAddr], tls: &str) -> String {
    let mut upstream = String::new();
    for server in servers {
        let _ = writeln!(upstream, "    server {server} max_fails=1 fail_timeout=1s;");
    }
    let ssl = if tls.is_empty() { "" } else { " ssl" };
    format!(
        "daemon off; master_process off; pid nginx.pid; worker_rlimit_nofile 4096;
events {{ worker_connections 1024; }}
http {{
  log_format told '$request_method $request_uri $status'; access_log access.log told;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u;
  scgi_temp_path s;
  upstream layeryard {{
{upstream}  }}
  server {{
    listen {address}{ssl};
    {tls}
    client_max_body_size 0;
    location / {{
      proxy_pass http://layeryard;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_request_buffering off;
      proxy_buffering off;
      proxy_read_timeout 900s;
      proxy_next_upstream error timeout http_503;
    }}
  }}
}}
"
    )
}
