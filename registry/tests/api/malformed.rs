//! What isn't right is refused with a reason, and the server goes on.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Harness, request};

/// Sends a request as it is and reads the whole answer.
pub(crate) async fn raw(address: SocketAddr, line: &str, headers: &[&str], body: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut head = format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    for header in headers {
        head.push_str(&format!("{header}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server may answer before it has read all.
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn malformed_requests_are_refused_by_name() {
    let harness = Harness::start().await;
    let address: SocketAddr = harness.address.parse().unwrap();
    let good = serde_json::to_string(&request("a")).unwrap();
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{good}");
        good.replace(from, to)
    };
    for (line, body, status, text) in [
        ("POST /api/v1/builds", "{".to_owned(), 400, "not valid"),
        (
            "POST /api/v1/builds",
            with("\"no_cache\"", "\"no_cash\""),
            400,
            "no_cash",
        ),
        ("POST /api/v1/builds", with("\"latest\"", "\"-bad\""), 400, "-bad"),
        ("POST /api/v1/builds", with("\"a\"", "\"A/../b\""), 400, "A/../b"),
        (
            "POST /api/v1/builds",
            with("FROM scratch\\n", " "),
            400,
            "is empty",
        ),
        (
            "POST /api/v1/builds",
            with("\"context\":null", "\"context\":\"../lock\""),
            404,
            "send it again",
        ),
        (
            "POST /api/v1/builds",
            "x".repeat(9 * 1024 * 1024),
            413,
            "more than",
        ),
        ("GET /api/v1/builds/none", String::new(), 404, "BUILD_UNKNOWN"),
        (
            "GET /api/v1/builds/none/events?after=x",
            String::new(),
            400,
            "after",
        ),
        (
            "GET /api/v1/contexts/..%2flock",
            String::new(),
            404,
            "CONTEXT_UNKNOWN",
        ),
        (
            "POST /api/v1/repositories/a/cache/lookup",
            "{\"keys\":[\"../x\"]}".to_owned(),
            400,
            "hex digits",
        ),
        (
            "POST /api/v1/repositories/A/cache/lookup",
            "{\"keys\":[]}".to_owned(),
            400,
            "NAME_INVALID",
        ),
        (
            "PUT /api/v1/repositories/a/memos/short",
            "\"x\"".to_owned(),
            400,
            "hex digits",
        ),
        (
            "POST /api/v1/repositories/a/other/lookup",
            "{}".to_owned(),
            404,
            "NOT_FOUND",
        ),
        (
            "POST /api/v1/images/resolve",
            "{\"reference\":\"a\"}".to_owned(),
            400,
            "platform",
        ),
        ("POST /api/v1/jobs/lease", "{}".to_owned(), 403, "worker"),
        ("PATCH /api/v1/builds", String::new(), 405, "method"),
        ("GET /api/v2/builds", String::new(), 404, "NOT_FOUND"),
    ] {
        let answer = raw(address, line, &[], body.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{line}: {answer}"
        );
        assert!(
            answer.contains(text) && answer.contains("\"errors\""),
            "{line}: {answer}"
        );
    }
    let secret = "Authorization: Bearer nobody";
    let answer = raw(address, "GET /api/v1/builds", &[secret], b"").await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(
        raw(address, "GET /api/v1/builds", &[], b"").await.ends_with("[]"),
        "the server goes on"
    );
    harness.stop().await;
}

#[tokio::test]
async fn image_names_are_checked_before_anything_is_asked() {
    let harness = Harness::start().await;
    let address: SocketAddr = harness.address.parse().unwrap();
    let own = format!("{address}/absent");
    for (reference, status, text) in [
        ("", 400, "no repository"),
        ("a@sha256:zz", 400, "hex digits"),
        ("a b", 400, "invalid"),
        ("169.254.169.254/x", 403, "link-local"),
        ("0.0.0.0:5000/x", 403, "unspecified"),
        (own.as_str(), 404, "not in this registry"),
    ] {
        let body = serde_json::json!({
            "reference": reference,
            "platform": { "os": "linux", "architecture": "amd64" },
        });
        let answer = raw(
            address,
            "POST /api/v1/images/resolve",
            &[],
            body.to_string().as_bytes(),
        )
        .await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{reference}: {answer}"
        );
        assert!(answer.contains(text), "{reference}: {answer}");
    }
    harness.stop().await;
}
