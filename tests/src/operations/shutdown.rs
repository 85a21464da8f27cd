//! A stopping server finishes what is on its way, and one that many slow clients lean on still serves.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use crate::harness::image::{Image, noise, push_blob, sha256};
use crate::harness::processes::eventually;
use crate::harness::server::Server;

#[test]
fn a_stop_finishes_slow_transfers_and_takes_no_new_ones() {
    let mut server = Server::start();
    let content = noise(9300, 8 << 20);
    let digest = push_blob(&server, "app", &content);
    let connect = || TcpStream::connect(server.address()).expect("connect");
    let mut download = connect();
    write!(
        download,
        "GET /v2/app/blobs/{digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .expect("ask");
    let mut got = vec![0; 1000];
    download.read_exact(&mut got).expect("the beginning");
    let uploaded = noise(9310, 1 << 20);
    let target = format!("/v2/app/blobs/uploads/?digest={}", sha256(&uploaded));
    let mut upload = connect();
    write!(
        upload,
        "POST {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        uploaded.len()
    )
    .expect("ask");
    let (begin, rest) = uploaded.split_at(1 << 19);
    upload.write_all(begin).expect("the first half");
    thread::sleep(Duration::from_millis(300));

    kill_process(
        Pid::from_raw(server.pid() as i32).expect("a process"),
        Signal::TERM,
    )
    .expect("signal");
    thread::sleep(Duration::from_millis(500));
    let refused = TcpStream::connect(server.address()).is_err();
    assert!(refused, "a stopping server takes no new connections");
    upload.write_all(rest).expect("the second half");
    let mut answer = String::new();
    upload.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let mut all = got;
    download.read_to_end(&mut all).expect("all of it");
    assert!(all.ends_with(&content), "the download was cut");
    server.stop();
    server.restart();
    let got = server
        .request("GET", &format!("/v2/app/blobs/{}", sha256(&uploaded)))
        .send()
        .expect(200);
    assert!(got.body == uploaded);
}

/// A balancer asks for readiness and sends nobody once that fails; who comes until then is served.
#[test]
fn a_stop_is_announced_before_it_begins() {
    let mut server = Server::start_configured("[limits]\nshutdown_delay = \"10s\"\n");
    Image::small(9320).push(&server, "app", "before");
    server.request("GET", "/readyz").send().expect(200);
    kill_process(
        Pid::from_raw(server.pid() as i32).expect("a process"),
        Signal::TERM,
    )
    .expect("signal");
    eventually("readiness ends", || {
        let answer = server.request("GET", "/readyz").send();
        answer.status == 503 && answer.text().contains("stopping")
    });
    server.request("GET", "/healthz").send().expect(200);
    Image::small(9321).push(&server, "app", "meanwhile");
    eventually("it takes no connections", || {
        TcpStream::connect(server.address()).is_err()
    });
    server.stop();
    server.restart();
    Image::small(9321).assert_on(&server, "app", "meanwhile");
}

/// What a slow client does.
enum Slow {
    /// Nothing at all.
    Silent,
    HalfHead,
    HalfBody,
    /// Asks for a blob and doesn't take it.
    HalfAnswer,
}

impl Slow {
    /// Most cost little; of every hundred one is after memory and five are after descriptors.
    fn number(index: usize) -> Self {
        match index % 100 {
            0 => Self::HalfAnswer,
            1..=5 => Self::HalfBody,
            6..=50 => Self::HalfHead,
            _ => Self::Silent,
        }
    }

    fn begin(&self, server: &Server, digest: &str) -> TcpStream {
        let head = match self {
            Self::Silent => String::new(),
            Self::HalfHead => "GET /v2/ HTTP/1.1\r\nHost:".to_owned(),
            Self::HalfAnswer => format!("GET /v2/slow/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n"),
            Self::HalfBody => {
                let started = server.request("POST", "/v2/slow/blobs/uploads/").send();
                let location = started.expect(202).location();
                format!("PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf")
            }
        };
        let mut stream = TcpStream::connect(server.address()).expect("connect");
        stream.write_all(head.as_bytes()).expect("say something");
        stream
    }
}

/// 10,000 by default, LAYERYARD_SLOW_CONNECTIONS=2000 where no more files may be open.
#[test]
fn thousands_of_slow_connections_do_not_keep_others_out() {
    let count = std::env::var("LAYERYARD_SLOW_CONNECTIONS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(10_000);
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("raise the limit of open files");
    // The server must raise its own from the usual one.
    let mut server = Server::start_under(&["prlimit", "--nofile=1024:"]);
    let digest = push_blob(&server, "slow", &noise(9310, 2 << 20));
    let slow: Vec<TcpStream> = (0..count)
        .map(|index| Slow::number(index).begin(&server, &digest))
        .collect();
    let image = Image::small(9320);
    image.push(&server, "app", "v1");
    image.assert_on(&server, "app", "v1");
    let metrics = server.metrics();
    let value = |name: &str| -> Option<usize> {
        metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.parse().ok())
    };
    assert!(value("layeryard_http_connections ") >= Some(count), "{metrics}");
    assert!(
        value("layeryard_uploads_running ") >= Some(count / 20),
        "{metrics}"
    );
    assert!(
        server.memory_peak_kib() < 512 * 1024,
        "{} KiB",
        server.memory_peak_kib()
    );
    drop(slow);
    server.assert_healthy();
}
