//! The audit log: changes, and refusals to those who said who they are.

use std::fs;

use super::*;

/// What the log says, a line as `event outcome who detail`.
fn told(server: &Server) -> Vec<String> {
    let text = fs::read_to_string(server.scratch().join("audit.log")).expect("the audit log");
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let field = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        ["event", "outcome", "who", "detail"].map(field).join(" ")
    };
    text.lines().map(line).collect()
}

#[test]
fn changes_and_refusals_are_told() {
    let config = USERS.replace("[access]\n", "[access]\naudit_log = 'DIR/audit.log'\n");
    let server = Server::start_prepared(&config, |dir| {
        fs::write(dir.join("htpasswd"), htpasswd()).expect("write a password file");
    });
    let (anna, bert) = (basic("anna", "secret"), basic("bert", "secret"));
    let (digest, blob) = push(&server, "team/app", "v1", "audited");
    // How every client begins, and what everybody may: not told.
    server.request("GET", "/v2/team/app/tags/list").send().expect(401);
    server.request("GET", "/api/v1/builds").send();
    send(&server, "GET", "/v2/team/app/manifests/v1", &bert).expect(200);

    for (method, target) in [
        ("GET", "/v2/other/app/manifests/v1".to_owned()),
        ("HEAD", format!("/v2/other/app/blobs/{blob}")),
        ("POST", "/v2/other/app/blobs/uploads/".to_owned()),
        ("DELETE", "/v2/team/app/manifests/v1".to_owned()),
        ("POST", "/api/v1/gc/run".to_owned()),
    ] {
        send(&server, method, &target, &bert).expect(403);
    }
    send(&server, "DELETE", "/v2/team/app/manifests/v1", &anna).expect(202);
    let restore = json!({"repository": "team/app", "tag": "v1"}).to_string();
    server
        .request("POST", "/api/v1/undelete")
        .header("Authorization", &anna)
        .body(restore)
        .send()
        .expect(200);
    send(&server, "POST", "/api/v1/gc/run", &anna).expect(200);
    send(&server, "POST", "/api/v1/verify", &anna).expect(202);

    let told = told(&server);
    let (log_ins, rest): (Vec<String>, Vec<String>) =
        told.into_iter().partition(|line| line.starts_with("login "));
    assert_eq!(
        log_ins,
        ["login granted anna ", "login granted bert "],
        "{rest:#?}"
    );
    let expected = [
        "push granted anna team/app v1".to_owned(),
        "pull refused bert /v2/other/app/manifests/v1".to_owned(),
        format!("pull refused bert /v2/other/app/blobs/{blob}"),
        "push refused bert /v2/other/app/blobs/uploads/".to_owned(),
        "delete refused bert team/app v1".to_owned(),
        "api refused bert POST /api/v1/gc/run".to_owned(),
        "delete granted anna team/app v1".to_owned(),
        "undelete granted anna team/app v1".to_owned(),
        "gc run granted anna ".to_owned(),
        "verify start granted anna ".to_owned(),
    ];
    assert_eq!(rest, expected, "the manifest is {digest}");
}
