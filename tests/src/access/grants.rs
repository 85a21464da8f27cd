//! Patterns, scopes, and what is told to those who may not look.

use serde_json::json;

use super::*;

/// Every read of every resource, with whether it says something if allowed.
fn reads(repository: &str, manifest: &str, blob: &str) -> Vec<(&'static str, String)> {
    let v2 = |rest: String| format!("/v2/{repository}/{rest}");
    vec![
        ("GET", v2("tags/list".into())),
        ("GET", v2("manifests/v1".into())),
        ("HEAD", v2(format!("manifests/{manifest}"))),
        ("GET", v2(format!("blobs/{blob}"))),
        ("HEAD", v2(format!("blobs/{blob}"))),
        ("GET", v2(format!("referrers/{manifest}"))),
        ("GET", v2("blobs/uploads/00000000000000000000000000000000".into())),
    ]
}

#[test]
fn nothing_is_open_without_a_grant_and_nothing_tells_what_exists() {
    let server = guarded();
    let (manifest, blob) = push(&server, "team/app", "v1", "hidden");
    let mut refusals = Vec::new();
    for repository in ["team/app", "team/none"] {
        for (method, target) in reads(repository, &manifest, &blob) {
            let nobody = server.request(method, &target).send();
            assert_eq!(nobody.status, 401, "{method} {target}: {}", nobody.text());
            let challenge = nobody.header("www-authenticate").expect("a challenge").to_owned();
            let realm = format!(
                "Bearer realm=\"http://{}/token\",service=\"layeryard\"",
                server.host()
            );
            assert!(challenge.starts_with(&realm), "{challenge}");
            let carl = send(&server, method, &target, &basic("carl", "secret"));
            assert_eq!(carl.status, 403, "{method} {target}: {}", carl.text());
            refusals.push((method, carl.text().replace(repository, "NAME")));
        }
    }
    let (there, not_there) = refusals.split_at(refusals.len() / 2);
    assert_eq!(there, not_there, "the answers tell whether it exists");
    for target in [
        "/v2/_catalog",
        "/v2/",
        "/metrics",
        "/api/v1/builds",
        "/api/v1/users",
        "/api/v1/whoami",
    ] {
        let answer = server.request("GET", target).send();
        let public = target == "/api/v1/builds";
        assert_eq!(
            answer.status,
            if public { 200 } else { 401 },
            "{target}: {}",
            answer.text()
        );
        assert!(!answer.text().contains("team"), "{target}: {}", answer.text());
    }
    server.request("GET", "/healthz").send().expect(200);
}

/// The matrix of verbs and rights. Whoever may push may overwrite; that is what rules for tags are for.
#[test]
fn each_verb_takes_its_right() {
    let more = r#"
[[access.grant]]
subject = "user:carl"
repositories = ["matrix/pull", "matrix/all"]
actions = ["pull"]
[[access.grant]]
subject = "user:carl"
repositories = ["matrix/push", "matrix/all"]
actions = ["push"]
[[access.grant]]
subject = "user:carl"
repositories = ["matrix/delete", "matrix/all"]
actions = ["delete"]
"#;
    let server = guarded_with(more);
    let carl = basic("carl", "secret");
    for repository in ["none", "pull", "push", "delete", "all"] {
        let name = format!("matrix/{repository}");
        let (manifest, blob) = push(&server, &name, "latest", "matrix");
        let has = |right: &str| repository == right || repository == "all";
        let v2 = |rest: &str| format!("/v2/{name}/{rest}");
        let calls = [
            ("GET", v2("manifests/latest"), has("pull")),
            ("GET", v2(&format!("blobs/{blob}")), has("pull")),
            ("GET", v2("tags/list"), has("pull")),
            ("POST", v2("blobs/uploads/"), has("push")),
            (
                "POST",
                v2(&format!("blobs/uploads/?mount={blob}&from=matrix/pull")),
                has("push"),
            ),
            ("PUT", v2("manifests/latest"), has("push")),
            (
                "PUT",
                v2(&format!("manifests/{manifest}?tag=latest")),
                has("push"),
            ),
            ("DELETE", v2("manifests/latest"), has("delete")),
            ("DELETE", v2(&format!("manifests/{manifest}")), has("delete")),
            ("DELETE", v2(&format!("blobs/{blob}")), has("delete")),
        ];
        for (method, target, allowed) in calls {
            let answer = send(&server, method, &target, &carl);
            assert_eq!(
                answer.status != 403,
                allowed,
                "{method} {target}: {} {}",
                answer.status,
                answer.text()
            );
        }
    }
}

#[test]
fn a_digest_known_from_elsewhere_opens_nothing() {
    let server = guarded();
    let (_, secret) = push(&server, "private/app", "v1", "the secret bytes");
    push(&server, "team/app", "v1", "bert's own");
    let bert = basic("bert", "secret");
    for (method, target) in [
        ("HEAD", format!("/v2/team/app/blobs/{secret}")),
        ("GET", format!("/v2/team/app/blobs/{secret}")),
    ] {
        send(&server, method, &target, &bert).expect(404);
        let ranged = server
            .request(method, &target)
            .header("Authorization", &bert)
            .header("Range", "bytes=0-3")
            .send();
        ranged.expect(404);
    }
    for from in ["&from=private/app", ""] {
        let target = format!("/v2/team/app/blobs/uploads/?mount={secret}{from}");
        send(&server, "POST", &target, &bert).expect(202);
    }
    send(&server, "HEAD", &format!("/v2/team/app/blobs/{secret}"), &bert).expect(404);
    // Who may pull there may mount from there.
    let anna = basic("anna", "secret");
    let target = format!("/v2/team/app/blobs/uploads/?mount={secret}&from=private/app");
    send(&server, "POST", &target, &anna).expect(201);
}

#[test]
fn an_upload_belongs_to_its_repository() {
    let server = guarded();
    let bert = basic("bert", "secret");
    let started = send(&server, "POST", "/v2/team/one/blobs/uploads/", &bert).expect(202);
    let location = started.location();
    let elsewhere = location.replace("team/one", "team/two");
    send(&server, "GET", &elsewhere, &bert).expect(404);
    send(&server, "GET", &location, &basic("carl", "secret")).expect(403);
    send(&server, "GET", &location, &bert).expect(204);
}

#[test]
fn the_catalog_shows_what_may_be_pulled() {
    let server = guarded();
    for name in [
        "a",
        "public/one",
        "public/one/deep",
        "team",
        "team/a/b",
        "team/z",
        "zoo",
    ] {
        push(&server, name, "v1", name);
    }
    let list = |authorization: Option<String>, query: &str| {
        let authorization = authorization.expect("credentials");
        let answer = send(&server, "GET", &format!("/v2/_catalog{query}"), &authorization).expect(200);
        (
            answer.json()["repositories"].clone(),
            answer.header("link").map(str::to_owned),
        )
    };
    server.request("GET", "/v2/_catalog").send().expect(401);
    let nobody = token(&server, None, "registry:catalog:*");
    assert_eq!(list(Some(bearer(&nobody)), "").0, json!(["public/one"]));
    assert_eq!(list(Some(basic("carl", "secret")), "").0, json!(["public/one"]));
    let bert = || Some(basic("bert", "secret"));
    assert_eq!(list(bert(), "").0, json!(["public/one", "team/a/b", "team/z"]));
    let (page, link) = list(bert(), "?n=2");
    assert_eq!(page, json!(["public/one", "team/a/b"]));
    assert!(
        link.expect("a link").contains("last=team/a/b"),
        "a page ends at what is shown"
    );
    let (page, link) = list(bert(), "?n=2&last=team/a/b");
    assert_eq!((page, link), (json!(["team/z"]), None));
    assert_eq!(
        list(Some(basic("anna", "secret")), "").0.as_array().map(Vec::len),
        Some(7)
    );
    // A token counts for what it was asked for.
    let narrow = token(&server, Some("bert"), "repository:team/z:pull");
    send(&server, "GET", "/v2/_catalog", &bearer(&narrow)).expect_error(401, "UNAUTHORIZED");
    let wide = token(&server, Some("bert"), "registry:catalog:*");
    assert_eq!(
        list(Some(bearer(&wide)), "").0,
        json!(["public/one", "team/a/b", "team/z"])
    );
    send(&server, "GET", "/v2/team/z/tags/list", &bearer(&wide)).expect_error(401, "UNAUTHORIZED");
}

/// Pull rights of builds are those of who asked for them.
#[test]
fn builds_have_the_rights_of_their_user() {
    let server = guarded();
    let body = |tag: &str| {
        json!({
            "dockerfile": {"name": "Dockerfile", "text": "FROM scratch\n"},
            "tags": [{"repository": tag, "tag": "v1"}], "detached": true,
        })
        .to_string()
    };
    let build = |user: &str, tag: &str| {
        server
            .request("POST", "/api/v1/builds")
            .header("Authorization", basic(user, "secret"))
            .body(body(tag))
            .send()
    };
    build("carl", "team/built").expect(403);
    build("bert", "private/built").expect(403);
    server
        .request("POST", "/api/v1/builds")
        .body(body("team/built"))
        .send()
        .expect(401);
    let id = build("bert", "team/built").expect(201).json()["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let path = format!("/api/v1/builds/{id}");
    send(&server, "GET", &path, &basic("carl", "secret")).expect(404);
    send(&server, "GET", &path, &basic("bert", "secret")).expect(200);
    for (method, target) in [
        ("POST", "/api/v1/contexts"),
        ("POST", "/api/v1/jobs/lease"),
        ("GET", "/api/v1/users"),
    ] {
        send(&server, method, target, &basic("carl", "secret")).expect(403);
    }
    // What its owner may do, a token for less may not.
    let narrow = bearer(&token(&server, Some("bert"), "repository:team/app:pull"));
    send(&server, "POST", "/api/v1/contexts", &narrow).expect_error(403, "DENIED");
}
