//! Who may do what with an account: users, robots, grants, tokens, TLS; with the clients that people use.

mod audit;
mod clients;
mod closed;
mod containerd;
mod doors;
mod external;
mod grants;
mod jobs;
mod logins;
mod mounts;
mod secrecy;
mod tls;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::http::Response;
use crate::harness::server::Server;

/// Users with the password `secret`: anna may do everything, bert what is in `team`, carl nothing.
const USERS: &str = r#"
[access]
anonymous = "none"
htpasswd = "DIR/htpasswd"
admins = ["anna"]
logins_per_minute = 1000

[[access.grant]]
subject = "user:bert"
repositories = ["team/**"]
actions = ["pull", "push"]

[[access.grant]]
subject = "anonymous"
repositories = ["public/*"]
actions = ["pull"]
"#;

fn guarded() -> Server {
    guarded_with("")
}

/// More of a configuration after [`USERS`].
fn guarded_with(more: &str) -> Server {
    Server::start_prepared(&format!("{USERS}\n{more}"), |dir| {
        std::fs::write(dir.join("htpasswd"), htpasswd()).expect("write a password file");
    })
}

fn htpasswd() -> String {
    let hash = bcrypt::hash("secret", 4).expect("hash a password");
    ["anna", "bert", "carl"]
        .map(|name| format!("{name}:{hash}\n"))
        .concat()
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A token of the server's own service.
fn token(server: &Server, user: Option<&str>, scope: &str) -> Value {
    let target = format!("/token?service=layeryard&scope={scope}");
    let mut request = server.request("GET", &target);
    if let Some(user) = user {
        request = request.header("Authorization", basic(user, "secret"));
    }
    request.send().expect(200).json()
}

fn bearer(token: &Value) -> String {
    format!("Bearer {}", token["token"].as_str().expect("a token"))
}

/// Sends a request with credentials.
fn send(server: &Server, method: &str, target: &str, authorization: &str) -> Response {
    let request = server
        .request(method, target)
        .header("Authorization", authorization);
    request.body(if method == "PUT" { "{}" } else { "" }).send()
}

/// Pushes a manifest with one blob, named by its text, as anna; returns the digests of manifest and blob.
fn push(server: &Server, repository: &str, tag: &str, text: &str) -> (String, String) {
    let anna = basic("anna", "secret");
    let blob = crate::harness::image::sha256(text.as_bytes());
    server
        .request("POST", &format!("/v2/{repository}/blobs/uploads/?digest={blob}"))
        .header("Authorization", &anna)
        .body(text)
        .send()
        .expect(201);
    let descriptor =
        json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": blob, "size": text.len()});
    let manifest = json!({
        "schemaVersion": 2, "mediaType": crate::harness::image::OCI_MANIFEST,
        "artifactType": "text/x", "config": descriptor, "layers": [],
    })
    .to_string();
    let answer = server
        .request("PUT", &format!("/v2/{repository}/manifests/{tag}"))
        .header("Authorization", &anna)
        .header("Content-Type", crate::harness::image::OCI_MANIFEST)
        .body(manifest)
        .send()
        .expect(201);
    let digest = answer
        .header("docker-content-digest")
        .expect("a digest")
        .to_owned();
    (digest, blob)
}
