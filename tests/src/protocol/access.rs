//! Who may do what without an account.

use std::fs;

use crate::harness::image::{Image, OCI_MANIFEST, push_blob, sha256};
use crate::harness::paths;
use crate::harness::server::Server;
use crate::harness::tool::Tool;

#[test]
fn unknown_token_is_refused() {
    let server = Server::start();
    let answer = server
        .request("GET", "/v2/")
        .header("Authorization", "Bearer nonsense")
        .send();
    answer.expect_error(401, "UNAUTHORIZED");
}

#[test]
fn read_only_server_takes_nothing() {
    let dir = paths::scratch();
    let config = dir.path().join("config.toml");
    fs::write(&config, "[access]\nanonymous = \"read-only\"\n").expect("write a configuration");
    let variable = format!("LAYERYARD_CONFIG={}", config.display());
    let mut server = Server::start_under(&["env", &variable]);
    let digest = sha256(b"x");
    let changes = [
        ("POST", "/v2/app/blobs/uploads/".to_owned()),
        ("POST", format!("/v2/app/blobs/uploads/?digest={digest}")),
        ("PUT", "/v2/app/manifests/latest".to_owned()),
        ("DELETE", "/v2/app/manifests/latest".to_owned()),
        ("DELETE", format!("/v2/app/blobs/{digest}")),
        ("POST", "/api/v1/contexts".to_owned()),
    ];
    for (method, target) in changes {
        let answer = server
            .request(method, &target)
            .header("Content-Type", OCI_MANIFEST)
            .body("x")
            .send();
        assert!(
            [401, 403].contains(&answer.status),
            "{method} {target}: {} {}",
            answer.status,
            answer.text()
        );
        assert!(
            answer.json()["errors"][0]["code"].is_string(),
            "{method} {target}: {}",
            answer.text()
        );
    }
    server.request("GET", "/v2/").send().expect(200);
    server.request("GET", "/v2/_catalog").send().expect(200);
    server.assert_healthy();
}

/// The socket is the worker's: file permissions alone must not open it.
#[test]
fn worker_s_socket_wants_a_token() {
    let server = Server::start();
    push_blob(&server, "app", b"x");
    Image::small(250).push(&server, "app", "v1");
    let socket = server.data_dir().join("run/api.sock");
    for target in ["/v2/", "/v2/app/manifests/v1", "/v2/_catalog", "/api/v1/builds"] {
        let curl =
            Tool::debian("curl").args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket"]);
        assert_eq!(
            curl.arg(&socket).arg(format!("http://localhost{target}")).ok(),
            "401",
            "{target}"
        );
    }
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&socket).expect("the socket").permissions());
    assert_eq!(mode & 0o777, 0o600);
}

/// Jobs, results and events of builds are the worker's business, and nobody else's.
#[test]
fn worker_s_calls_are_refused_to_others() {
    let server = Server::start();
    for (method, target, body) in [
        ("POST", "/api/v1/jobs/lease", "{}"),
        ("POST", "/api/v1/builds/x/events", r#"{"first": 0, "events": []}"#),
        ("POST", "/api/v1/builds/x/result", r#"{"outcome": "cancelled"}"#),
    ] {
        let answer = server
            .request(method, target)
            .header("Content-Type", "application/json")
            .body(body)
            .send();
        assert!(
            [401, 403, 404].contains(&answer.status),
            "{method} {target}: {} {}",
            answer.status,
            answer.text()
        );
    }
}
