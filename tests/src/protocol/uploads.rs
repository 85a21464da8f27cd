//! Upload sessions: every way to push a blob, and every way to fail at it.

use std::thread;

use sha2::{Digest as _, Sha256};

use crate::harness::image::{noise, push_blob, sha256, sha512, with_digest};
use crate::harness::server::Server;

/// Opens a session; the `Location`.
#[track_caller]
fn open(server: &Server, repository: &str) -> String {
    server
        .request("POST", &format!("/v2/{repository}/blobs/uploads/"))
        .send()
        .expect(202)
        .location()
}

#[track_caller]
fn assert_blob(server: &Server, repository: &str, digest: &str, bytes: &[u8]) {
    let target = format!("/v2/{repository}/blobs/{digest}");
    let head = server.request("HEAD", &target).send().expect(200);
    assert_eq!(
        head.header("content-length"),
        Some(bytes.len().to_string().as_str())
    );
    let got = server.request("GET", &target).send().expect(200);
    assert_eq!(got.header("docker-content-digest"), Some(digest));
    assert!(got.body == bytes, "the blob {digest} came back changed");
}

#[test]
fn blob_is_pushed_in_one_request() {
    let server = Server::start();
    let bytes = noise(1, 100_000);
    let digest = sha256(&bytes);
    let post = server.request("POST", &format!("/v2/app/blobs/uploads/?digest={digest}"));
    post.header("Content-Type", "application/octet-stream")
        .body(bytes.clone())
        .send()
        .expect(201);
    assert_blob(&server, "app", &digest, &bytes);
}

#[test]
fn blob_is_pushed_as_a_stream_without_length() {
    let server = Server::start();
    let bytes = noise(2, 3_000_000);
    let location = open(&server, "app");
    let chunks = bytes.chunks(70_001).map(<[u8]>::to_vec);
    let patched = server
        .request("PATCH", &location)
        .chunked(chunks)
        .send()
        .expect(202);
    assert_eq!(patched.header("range"), Some("0-2999999"));
    let digest = sha256(&bytes);
    let put = server
        .request("PUT", &with_digest(&patched.location(), &digest))
        .send()
        .expect(201);
    assert_eq!(put.header("docker-content-digest"), Some(digest.as_str()));
    assert_blob(&server, "app", &digest, &bytes);
}

#[test]
fn memory_stays_flat_whatever_the_size() {
    const MIB: usize = 1 << 20;
    let server = Server::start();
    push_blob(&server, "app", &noise(11, MIB));
    let before = server.memory_peak_kib();
    let chunk = noise(12, MIB);
    let mut hash = Sha256::new();
    (0..256).for_each(|_| hash.update(&chunk));
    let digest = format!("sha256:{}", hex::encode(hash.finalize()));
    let location = open(&server, "app");
    let chunks = (0..256).map(|_| chunk.clone());
    let location = server
        .request("PATCH", &location)
        .chunked(chunks)
        .send()
        .expect(202)
        .location();
    server
        .request("PUT", &with_digest(&location, &digest))
        .send()
        .expect(201);
    let got = server
        .request("GET", &format!("/v2/app/blobs/{digest}"))
        .send()
        .expect(200);
    assert_eq!(got.body.len(), 256 * MIB);
    let grown = server.memory_peak_kib() - before;
    assert!(grown < 32 * 1024, "{grown} KiB more for a blob of 256 MiB");
}

#[test]
fn chunks_come_in_order_or_get_416_and_the_session_goes_on() {
    let mut server = Server::start();
    let bytes = noise(3, 300_000);
    let (first, rest) = bytes.split_at(100_000);
    let location = open(&server, "app");

    let early = server
        .request("PATCH", &location)
        .header("Content-Range", "100000-299999");
    let early = early.body(rest).send().expect(416);
    assert!(early.header("location").is_some(), "416 without a Location");

    let ok = server
        .request("PATCH", &location)
        .header("Content-Range", "bytes=0-99999")
        .body(first)
        .send();
    let location = ok.expect(202).location();
    server
        .request("PATCH", &location)
        .header("Content-Range", "0-99999")
        .body(first)
        .send()
        .expect(416);
    let status = server.request("GET", &location).send().expect(204);
    assert_eq!(status.header("range"), Some("0-99999"));

    let digest = sha256(&bytes);
    let closing = with_digest(&status.location(), &digest);
    server
        .request("PUT", &closing)
        .header("Content-Range", "200000-399999")
        .body(rest)
        .send()
        .expect(416);
    server
        .request("PUT", &closing)
        .header("Content-Range", "100000-299999")
        .body(rest)
        .send()
        .expect(201);
    assert_blob(&server, "app", &digest, &bytes);
    server.assert_healthy();
}

#[test]
fn content_range_must_be_as_long_as_the_body() {
    let server = Server::start();
    let location = open(&server, "app");
    for range in [
        "0-9",
        "9-0",
        "x-y",
        "0-",
        "-5",
        "0-18446744073709551615",
        "bytes 0-9/10",
    ] {
        let answer = server
            .request("PATCH", &location)
            .header("Content-Range", range)
            .body("four")
            .send();
        let shown = format!("{range}: {} {}", answer.status, answer.text());
        assert!([400, 416].contains(&answer.status), "{shown}");
    }
    let status = server.request("GET", &location).send().expect(204);
    assert_eq!(status.header("range"), Some("0-0"), "a refused chunk was kept");
}

#[test]
fn wrong_digest_commits_nothing() {
    let mut server = Server::start();
    let (told, sent) = (noise(4, 5_000), noise(5, 5_000));
    let location = open(&server, "app");
    let closing = with_digest(&location, &sha256(&told));
    server
        .request("PUT", &closing)
        .body(sent.clone())
        .send()
        .expect_error(400, "DIGEST_INVALID");
    assert_none(&mut server, [&told, &sent]);
}

#[test]
fn wrong_digest_in_one_request_commits_nothing() {
    let mut server = Server::start();
    let (told, sent) = (noise(13, 5_000), noise(14, 5_000));
    let single = format!("/v2/app/blobs/uploads/?digest={}", sha256(&told));
    let single = server
        .request("POST", &single)
        .header("Content-Type", "application/octet-stream");
    single
        .body(sent.clone())
        .send()
        .expect_error(400, "DIGEST_INVALID");
    assert_none(&mut server, [&told, &sent]);
}

#[track_caller]
fn assert_none(server: &mut Server, blobs: [&Vec<u8>; 2]) {
    for bytes in blobs {
        server
            .request("HEAD", &format!("/v2/app/blobs/{}", sha256(bytes)))
            .send()
            .expect(404);
    }
    server.assert_healthy();
}

#[test]
fn cancelled_session_is_gone() {
    let server = Server::start();
    let location = open(&server, "app");
    let location = server
        .request("PATCH", &location)
        .body("begun")
        .send()
        .expect(202)
        .location();
    server.request("DELETE", &location).send().expect(204);
    server
        .request("GET", &location)
        .send()
        .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    server
        .request("PATCH", &location)
        .body("more")
        .send()
        .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    server
        .request("DELETE", &location)
        .send()
        .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    let closing = with_digest(&location, &sha256(b"begun"));
    server
        .request("PUT", &closing)
        .send()
        .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
}

#[test]
fn session_belongs_to_its_repository() {
    let server = Server::start();
    let location = open(&server, "mine");
    let stolen = location.replace("/v2/mine/", "/v2/theirs/");
    server
        .request("GET", &stolen)
        .send()
        .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    server
        .request("PATCH", &stolen)
        .body("x")
        .send()
        .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    server
        .request("PUT", &with_digest(&stolen, &sha256(b"")))
        .send()
        .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    server
        .request("DELETE", &stolen)
        .send()
        .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    server.request("GET", &location).send().expect(204);
}

#[test]
fn cut_connection_leaves_a_session_that_can_be_resumed() {
    let mut server = Server::start();
    let bytes = noise(6, 2_000_000);
    let location = open(&server, "app");
    let cut = server
        .request("PATCH", &location)
        .cut_after(&bytes[..1_500_000], 2_000_000);
    assert!(cut.try_send().is_err(), "an answer to half a request");

    // How much arrived is the server's word; a writer that was cut may need a moment to let go.
    let mut arrived = None;
    for _ in 0..50 {
        let status = server.request("GET", &location).send().expect(204);
        let range = status.header("range").expect("a Range").to_owned();
        let end: usize = range
            .strip_prefix("0-")
            .expect("starts at 0")
            .parse()
            .expect("a number");
        let kept = if end == 0 { 0 } else { end + 1 };
        assert!(kept <= 1_500_000, "more than was sent: {range}");
        let patch = server.request("PATCH", &status.location());
        let patch = patch
            .header("Content-Range", format!("{kept}-1999999"))
            .body(&bytes[kept..])
            .send();
        if patch.status == 202 {
            arrived = Some(patch.location());
            break;
        }
        thread::sleep(std::time::Duration::from_millis(100));
    }
    let location = arrived.expect("the session never became free");
    let digest = sha256(&bytes);
    server
        .request("PUT", &with_digest(&location, &digest))
        .send()
        .expect(201);
    assert_blob(&server, "app", &digest, &bytes);
    server.assert_healthy();
}

#[test]
fn many_clients_commit_one_blob_at_once() {
    let server = Server::start();
    let bytes = noise(7, 1_000_000);
    thread::scope(|scope| {
        for client in 0..8 {
            let (server, bytes) = (&server, &bytes);
            scope.spawn(move || push_blob(server, &format!("app{}", client % 3), bytes));
        }
    });
    for repository in ["app0", "app1", "app2"] {
        assert_blob(&server, repository, &sha256(&bytes), &bytes);
    }
}

#[test]
fn sha512_is_a_digest_like_any_other() {
    let server = Server::start();
    let bytes = noise(8, 50_000);
    let digest = sha512(&bytes);
    let location = open(&server, "app");
    server
        .request("PUT", &with_digest(&location, &digest))
        .body(bytes.clone())
        .send()
        .expect(201);
    assert_blob(&server, "app", &digest, &bytes);
}

#[test]
fn mount_links_a_blob_of_another_repository() {
    let server = Server::start();
    let bytes = noise(9, 10_000);
    let digest = push_blob(&server, "source", &bytes);
    // A digest known from elsewhere opens nothing.
    server
        .request("GET", &format!("/v2/target/blobs/{digest}"))
        .send()
        .expect(404);
    let mount = format!("/v2/target/blobs/uploads/?mount={digest}&from=source");
    let mounted = server.request("POST", &mount).send().expect(201);
    assert!(mounted.location().ends_with(&digest), "{}", mounted.location());
    assert_blob(&server, "target", &digest, &bytes);
}

#[test]
fn mount_of_what_is_not_there_opens_a_session() {
    let server = Server::start();
    push_blob(&server, "source", b"something else");
    let bytes = noise(10, 1_000);
    let digest = sha256(&bytes);
    for from in ["source", "no/such/repository"] {
        let mount = format!("/v2/target/blobs/uploads/?mount={digest}&from={from}");
        let location = server.request("POST", &mount).send().expect(202).location();
        server.request("GET", &location).send().expect(204);
    }
    let location = open(&server, "target");
    server
        .request("PUT", &with_digest(&location, &digest))
        .body(bytes.clone())
        .send()
        .expect(201);
    assert_blob(&server, "target", &digest, &bytes);
}
