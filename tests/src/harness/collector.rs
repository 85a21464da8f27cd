//! OpenTelemetry's collector: takes traces as protobuf and hands them on as JSON.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::paths;
use super::upstream::free_address;

const START_SECONDS_MAX: u64 = 30;

pub(crate) struct Collector {
    child: Child,
    address: SocketAddr,
    _dir: TempDir,
}

impl Collector {
    /// Hands on to `sink`, an address that takes POSTs.
    pub(crate) fn start(sink: &str) -> Self {
        let dir = paths::scratch();
        let address = free_address();
        let config = format!(
            "receivers: {{otlp: {{protocols: {{http: {{endpoint: '{address}'}}}}}}}}\n\
             exporters: {{otlp_http: {{traces_endpoint: '{sink}', encoding: json, compression: none, \
             sending_queue: {{enabled: false}}}}}}\n\
             service:\n  telemetry: {{metrics: {{level: none}}}}\n  \
             pipelines: {{traces: {{receivers: [otlp], exporters: [otlp_http]}}}}\n"
        );
        let path = dir.path().join("config.yaml");
        fs::write(&path, config).expect("write the collector's configuration");
        let log = File::create(dir.path().join("log")).expect("make the collector's log");
        let child = Command::new(paths::peer("otelcol", "traces"))
            .arg("--config")
            .arg(format!("file:{}", path.display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("duplicate the log"))
            .stderr(log)
            .spawn()
            .expect("start the collector");
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        while TcpStream::connect(address).is_err() {
            let said = fs::read_to_string(dir.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "the collector does not start\n{said}");
            thread::sleep(Duration::from_millis(20));
        }
        Self {
            child,
            address,
            _dir: dir,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
