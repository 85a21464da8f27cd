//! Who must not get in although nobody has to show who they are.

use serde_json::json;

use super::{basic, guarded};
use crate::harness::image::Image;
use crate::harness::server::Server;

/// What a page would like to do.
const CHANGES: [(&str, &str); 5] = [
    ("POST", "/v2/app/blobs/uploads/"),
    ("DELETE", "/v2/app/manifests/latest"),
    ("POST", "/api/v1/contexts"),
    ("POST", "/api/v1/builds"),
    ("POST", "/api/v1/gc"),
];

#[test]
fn pages_of_other_sites_reach_nothing() {
    let server = Server::start();
    let image = Image::small(9700);
    image.push(&server, "app", "latest");
    for (method, path) in CHANGES {
        for (header, value) in [
            ("Origin", "https://evil.example"),
            ("Origin", "http://localhost:3000"),
            ("Origin", "null"),
            ("Sec-Fetch-Site", "cross-site"),
        ] {
            // As a form or a simple request sends it, which no browser asks about before.
            let request = server.request(method, path).header(header, value);
            let answer = request.header("Content-Type", "text/plain").body("{}").send();
            answer.expect_error(403, "DENIED");
        }
    }
    image.assert_on(&server, "app", "latest");
    // A page of the server's own, if it had one.
    let own = format!("http://{}", server.host());
    server
        .request("POST", "/v2/app/blobs/uploads/")
        .header("Origin", &own)
        .send()
        .expect(202);
}

#[test]
fn a_rebound_page_changes_nothing() {
    let server = Server::start();
    let image = Image::small(9710);
    image.push(&server, "app", "latest");
    let port = server.host().rsplit_once(':').expect("a port").1.to_owned();
    let rebound = format!("evil.example:{port}");
    let reads = [
        ("GET", "/v2/"),
        ("GET", "/v2/_catalog"),
        ("GET", "/v2/app/manifests/latest"),
        ("GET", "/api/v1/images"),
    ];
    for (method, path) in CHANGES.into_iter().chain(reads) {
        let request = server.request(method, path).header("Host", &rebound);
        let origin = format!("http://{rebound}");
        let answer = request.header("Origin", &origin).send();
        answer.expect_error(403, "DENIED");
    }
    image.assert_on(&server, "app", "latest");
    for host in [
        "localhost",
        "127.0.0.1",
        "[::1]",
        "registry",
        "host.docker.internal",
    ] {
        let request = server
            .request("GET", "/v2/")
            .header("Host", format!("{host}:{port}"));
        request.send().expect(200);
    }

    // Where accounts decide, any name is good, and a page has no account.
    let server = guarded();
    let request = server
        .request("GET", "/v2/")
        .header("Host", "registry.example.com");
    request.send().expect(401);
}

/// What is stolen from a CI job must not become what its user may do.
#[test]
fn a_narrow_credential_makes_no_wider_one() {
    let server = guarded();
    let token_for = |authorization: &str, scope: &str| {
        let request = server.request("GET", &format!("/token?service=layeryard&scope={scope}"));
        let answer = request.header("Authorization", authorization).send().expect(200);
        format!("Bearer {}", answer.json()["token"].as_str().expect("a token"))
    };
    let new = |name: &str| {
        let scopes = json!([{"pattern": "**", "actions": ["pull", "push", "delete", "admin"]}]);
        json!({"name": name, "owner": null, "scopes": scopes, "expires_in_seconds": 600}).to_string()
    };
    let create = |authorization: &str, name: &str| {
        let request = server
            .request("POST", "/api/v1/tokens")
            .header("Authorization", authorization);
        request
            .header("Content-Type", "application/json")
            .body(new(name))
            .send()
    };
    let whole = create(&basic("bert", "secret"), "whole").expect(201);
    let robot = format!("Bearer {}", whole.json()["token"].as_str().expect("a token"));
    for user in ["anna", "bert"] {
        let password = basic(user, "secret");
        let narrow = token_for(&password, "repository:team/app:pull");
        for (credential, what) in [(&narrow, "a token to pull"), (&robot, "a robot")] {
            let refused = create(credential, "wider");
            assert_eq!(refused.status, 403, "{user}, {what}: {}", refused.text());
            for path in ["/api/v1/users", "/api/v1/grants", "/api/v1/groups"] {
                let asked = server
                    .request("GET", path)
                    .header("Authorization", credential.as_str())
                    .send();
                assert_eq!(asked.status, 403, "{user}, {what}, {path}: {}", asked.text());
            }
            let revoke = server.request("DELETE", "/api/v1/tokens/whole");
            let revoked = revoke.header("Authorization", credential.as_str()).send();
            assert_eq!(revoked.status, 404, "{user}, {what}: {}", revoked.text());
            // A token for more is only given for what proves its user.
            let wider = server.request("GET", "/token?service=layeryard&scope=repository:team/app:push");
            let wider = wider.header("Authorization", credential.as_str()).send();
            assert!(
                wider.status == 401 || what == "a robot",
                "{user}, {what}: {}",
                wider.text()
            );
        }
        let asked = token_for(&password, "registry:api:*");
        create(&asked, &format!("by-{user}")).expect(201);
    }
}
