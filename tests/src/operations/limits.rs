//! Clients that are slow, silent or many: each is bounded, and others don't notice.

use std::io::{Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use crate::harness::image::{Image, noise, push_blob, sha256, with_digest};
use crate::harness::server::Server;

const WAIT_SECONDS_MAX: u64 = 60;

/// A connection that comes from another address of the loopback.
fn connect_from(last: u8, server: &Server) -> TcpStream {
    let SocketAddr::V4(to) = server.address() else {
        panic!("the tests listen on IPv4");
    };
    let from = SocketAddrV4::new([127, 0, 0, last].into(), 0);
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &from).expect("an address of the loopback");
    connect(&socket, &to).expect("connect");
    TcpStream::from(socket)
}

/// Begins an upload of two bytes and sends one. `rest` ends it.
struct Upload {
    stream: TcpStream,
}

impl Upload {
    fn begin(server: &Server, mut stream: TcpStream) -> Self {
        let location = server
            .request("POST", "/v2/app/blobs/uploads/")
            .send()
            .expect(202);
        let head = format!(
            "PATCH {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\na",
            location.location()
        );
        stream.write_all(head.as_bytes()).expect("begin an upload");
        Self { stream }
    }

    fn rest(mut self) -> String {
        self.stream.write_all(b"b").expect("the rest");
        answer(self.stream)
    }
}

fn answer(mut stream: TcpStream) -> String {
    stream
        .set_read_timeout(Some(Duration::from_secs(WAIT_SECONDS_MAX)))
        .expect("set a timeout");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[track_caller]
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(WAIT_SECONDS_MAX);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn metric(server: &Server, name: &str) -> u64 {
    let text = server.metrics();
    let found = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    found.unwrap_or_else(|| panic!("no {name} in {text}"))
}

#[test]
fn uploads_at_once_are_bounded_for_each_client_and_for_all() {
    let server = Server::start_configured("[limits]\nuploads_max = 4\nuploads_per_client_max = 2\n");
    let begin = |last| Upload::begin(&server, connect_from(last, &server));
    let mut running = vec![begin(2), begin(2), begin(3)];
    eventually("three uploads run", || {
        metric(&server, "layeryard_uploads_running ") == 3
    });

    let refused = begin(2).rest();
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    assert!(refused.contains("TOOMANYREQUESTS"), "{refused}");
    let head = refused.to_ascii_lowercase();
    assert!(head.contains("\r\nretry-after: "), "{refused}");
    // Others are not kept out, and what brings no blob isn't an upload.
    assert!(begin(3).rest().starts_with("HTTP/1.1 202"));
    server.request("GET", "/v2/app/tags/list").send().expect(404);

    running.push(begin(4));
    eventually("four uploads run", || {
        metric(&server, "layeryard_uploads_running ") == 4
    });
    let refused = begin(5).rest();
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    assert_eq!(metric(&server, "layeryard_uploads_refused_total "), 2);

    // A client that hangs up has nothing left to hold.
    drop(running.pop());
    for upload in running {
        assert!(upload.rest().starts_with("HTTP/1.1 202"));
    }
    eventually("the uploads have ended", || {
        metric(&server, "layeryard_uploads_running ") == 0
    });
    let image = Image::small(9900);
    image.push(&server, "app", "v1");
    image.assert_on(&server, "app", "v1");
}

#[test]
fn an_upload_that_stalls_ends_and_its_session_goes_on() {
    let server = Server::start_configured("[limits]\nbody_stalled_max = '1s'\n");
    let content = noise(9910, 300_000);
    let (first, rest) = content.split_at(200_000);
    let location = server
        .request("POST", "/v2/app/blobs/uploads/")
        .send()
        .expect(202)
        .location();
    let mut stream = TcpStream::connect(server.address()).expect("connect");
    let head = format!(
        "PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        content.len()
    );
    stream.write_all(head.as_bytes()).expect("a head");
    stream.write_all(first).expect("a part");
    let said = answer(stream);
    assert!(said.starts_with("HTTP/1.1 408"), "{said}");
    assert!(
        said.contains("BLOB_UPLOAD_INVALID") && said.contains("nothing came"),
        "{said}"
    );

    let standing = server.request("GET", &location).send().expect(204);
    let range = format!("0-{}", first.len() - 1);
    assert_eq!(standing.header("range"), Some(range.as_str()));
    let put = server.request("PUT", &with_digest(&location, &sha256(&content)));
    put.body(rest).send().expect(201);
    let got = server.request("GET", &format!("/v2/app/blobs/{}", sha256(&content)));
    assert!(got.send().expect(200).body == content);
}

#[test]
fn a_download_that_nobody_takes_is_cut() {
    let server = Server::start_configured("[limits]\nanswer_stalled_max = '1s'\n");
    let digest = push_blob(&server, "app", &noise(9920, 64 << 20));
    let mut stream = TcpStream::connect(server.address()).expect("connect");
    write!(stream, "GET /v2/app/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n").expect("ask");
    let mut begin = [0; 1000];
    stream.read_exact(&mut begin).expect("the beginning");
    // The metrics' own connection is always there.
    eventually("the connection is cut", || {
        metric(&server, "layeryard_http_connections ") == 1
    });
    let rest = stream.read_to_end(&mut Vec::new());
    assert!(
        rest.is_err() || rest.is_ok_and(|length| length < 64 << 20),
        "all of it came"
    );
}

#[test]
fn connections_without_a_request_end() {
    let server = Server::start_configured("[limits]\nheader_read_max = '1s'\n");
    // An HTTP/2 client that has introduced itself.
    let settings = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(),
        &[0, 0, 0, 4, 0, 0, 0, 0, 0],
    ]
    .concat();
    let kept = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    for (what, sent) in [
        ("silent", Vec::new()),
        ("half a head", b"GET /v2/ HTTP/1.1\r\nHost:".to_vec()),
        ("half a preface", settings[..10].to_vec()),
        ("HTTP/2", settings.clone()),
        ("kept open", kept),
    ] {
        let mut stream = TcpStream::connect(server.address()).expect("connect");
        stream.write_all(&sent).expect("send");
        stream
            .set_read_timeout(Some(Duration::from_secs(WAIT_SECONDS_MAX)))
            .expect("set a timeout");
        let ended = stream.read_to_end(&mut Vec::new());
        assert!(ended.is_ok(), "{what}: {ended:?}");
    }
}

#[test]
fn more_connections_than_may_be_wait_for_their_turn() {
    let server = Server::start_configured("[limits]\nconnections_max = 3\nheader_read_max = '1s'\n");
    let silent: Vec<TcpStream> = (0..6)
        .map(|_| TcpStream::connect(server.address()).expect("connect"))
        .collect();
    // Behind six that say nothing: two rounds of three have to end.
    let image = Image::small(9930);
    image.push(&server, "app", "v1");
    image.assert_on(&server, "app", "v1");
    drop(silent);
}
