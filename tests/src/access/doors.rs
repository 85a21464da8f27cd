//! Every route there is, for those who don't say who they are and for those who may do nothing.

use super::*;

/// Beside `/api/v1`, of which the server's own description tells.
const OTHERS: [(&str, &str); 18] = [
    ("GET", "/v2/"),
    ("GET", "/v2/_catalog"),
    ("GET", "/v2/team/app/tags/list"),
    ("HEAD", "/v2/team/app/manifests/v1"),
    ("GET", "/v2/team/app/manifests/v1"),
    ("PUT", "/v2/team/app/manifests/v1"),
    ("DELETE", "/v2/team/app/manifests/v1"),
    ("GET", "/v2/team/app/referrers/DIGEST"),
    ("HEAD", "/v2/team/app/blobs/DIGEST"),
    ("GET", "/v2/team/app/blobs/DIGEST"),
    ("DELETE", "/v2/team/app/blobs/DIGEST"),
    ("POST", "/v2/team/app/blobs/uploads/"),
    ("POST", "/v2/team/app/blobs/uploads/?mount=DIGEST&from=team/other"),
    ("GET", "/v2/team/app/blobs/uploads/ID"),
    ("PATCH", "/v2/team/app/blobs/uploads/ID"),
    ("PUT", "/v2/team/app/blobs/uploads/ID?digest=DIGEST"),
    ("DELETE", "/v2/team/app/blobs/uploads/ID"),
    ("GET", "/metrics"),
];

/// For everybody, whatever the configuration.
const OPEN: [&str; 1] = ["GET /api/v1/openapi.json"];

/// What every user may ask for of their own.
const OWN: [&str; 6] = [
    "GET /api/v1/builds",
    "GET /api/v1/tokens",
    "GET /api/v1/whoami",
    "GET /metrics",
    "GET /v2/",
    "GET /v2/_catalog",
];

fn routes(server: &Server, digest: &str) -> Vec<(String, String)> {
    let description = server
        .request("GET", "/api/v1/openapi.json")
        .send()
        .expect(200)
        .json();
    let mut routes = Vec::new();
    for (path, methods) in description["paths"].as_object().expect("paths") {
        let path = path.replace("{id}", "0123456789abcdef0123456789abcdef");
        let mut path = path.replace("{name}", "team");
        while let Some((before, rest)) = path.clone().split_once('{') {
            let (_, after) = rest.split_once('}').expect("a parameter's end");
            path = format!("{before}anna{after}");
        }
        let methods = methods.as_object().expect("methods").keys();
        let methods = methods.filter(|key| *key != "parameters");
        routes.extend(methods.map(|method| (method.to_uppercase(), format!("/api/v1{path}"))));
    }
    assert!(routes.len() > 30, "{routes:?}");
    let id = "0123456789abcdef0123456789abcdef";
    let others = OTHERS.map(|(method, path)| {
        let path = path.replace("DIGEST", digest).replace("ID", id);
        (method.to_owned(), path)
    });
    routes.extend(others);
    routes
}

#[test]
fn no_route_is_open() {
    let config = USERS
        .split("\n[[access.grant]]\nsubject = \"anonymous\"")
        .next()
        .expect("a part");
    let server = Server::start_prepared(config, |dir| {
        std::fs::write(dir.join("htpasswd"), htpasswd()).expect("write a password file");
    });
    let (_, blob) = push(&server, "team/app", "v1", "behind doors");
    let carl = basic("carl", "secret");
    let mut wrong = Vec::new();
    for (method, path) in routes(&server, &blob) {
        let name = format!("{method} {path}");
        let ask = |authorization: Option<&str>| {
            let mut request = server.request(&method, &path);
            if let Some(authorization) = authorization {
                request = request.header("Authorization", authorization);
            }
            request
                .body(if method == "GET" || method == "HEAD" {
                    ""
                } else {
                    "{}"
                })
                .send()
                .status
        };
        if !OPEN.contains(&name.as_str()) && ask(None) != 401 {
            wrong.push(format!("{name}: {} for nobody", ask(None)));
        }
        let known = [OPEN.as_slice(), OWN.as_slice()]
            .concat()
            .contains(&name.as_str());
        let status = ask(Some(&carl));
        if known != (status == 200) || (!known && !matches!(status, 400 | 403 | 404)) {
            wrong.push(format!("{name}: {status} for carl"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let kept = send(
        &server,
        "GET",
        "/v2/team/app/manifests/v1",
        &basic("anna", "secret"),
    );
    kept.expect(200);
}

#[test]
fn metrics_are_for_whom_the_configuration_says() {
    let statuses = |metrics: &str| {
        let more = format!("[access]\nmetrics = \"{metrics}\"\n");
        let config = USERS.replace("\n[access]\n", &more);
        let config = config.split("\n[[access.grant]]\nsubject = \"anonymous\"").next();
        let server = Server::start_prepared(config.expect("a part"), |dir| {
            std::fs::write(dir.join("htpasswd"), htpasswd()).expect("write a password file");
        });
        let nobody = server.request("GET", "/metrics").send().status;
        let carl = send(&server, "GET", "/metrics", &basic("carl", "secret")).status;
        let anna = send(&server, "GET", "/metrics", &basic("anna", "secret")).status;
        [nobody, carl, anna]
    };
    assert_eq!(statuses("public"), [200, 200, 200]);
    assert_eq!(statuses("authenticated"), [401, 200, 200]);
    assert_eq!(statuses("admin"), [401, 403, 200]);
}
