//! What belongs to one repository stays there: blobs are stored once for all, and a digest known from elsewhere is no key.

use super::*;
use crate::harness::image::{OCI_INDEX, OCI_MANIFEST, sha256};

/// Pushes a blob with a user's rights.
fn upload(server: &Server, repository: &str, bytes: &str, authorization: &str) -> String {
    let digest = sha256(bytes.as_bytes());
    server
        .request(
            "POST",
            &format!("/v2/{repository}/blobs/uploads/?digest={digest}"),
        )
        .header("Authorization", authorization)
        .body(bytes)
        .send()
        .expect(201);
    digest
}

/// Every way to a blob's bytes.
#[track_caller]
fn assert_closed(server: &Server, repository: &str, digest: &str, authorization: &str) {
    let target = format!("/v2/{repository}/blobs/{digest}");
    for method in ["GET", "HEAD"] {
        for range in [None, Some("bytes=0-0"), Some("bytes=0-"), Some("bytes=-1")] {
            let mut request = server
                .request(method, &target)
                .header("Authorization", authorization);
            if let Some(range) = range {
                request = request.header("Range", range);
            }
            let answer = request.send();
            assert_eq!(answer.status, 404, "{method} {range:?}: {}", answer.text());
        }
    }
}

#[test]
fn a_blob_deleted_here_stays_deleted_although_it_lives_elsewhere() {
    let server = guarded();
    let (anna, bert) = (basic("anna", "secret"), basic("bert", "secret"));
    let digest = upload(&server, "team/one", "shared bytes", &anna);
    let mount = format!("/v2/private/two/blobs/uploads/?mount={digest}&from=team/one");
    send(&server, "POST", &mount, &anna).expect(201);
    let target = format!("/v2/team/one/blobs/{digest}");
    send(&server, "DELETE", &target, &anna).expect(202);
    assert_closed(&server, "team/one", &digest, &bert);
    assert_closed(&server, "team/one", &digest, &anna);
    // Whatever remembers the blob from reading it there must not know it here.
    let there = format!("/v2/private/two/blobs/{digest}");
    let read = send(&server, "GET", &there, &anna).expect(200);
    assert_eq!(read.text(), "shared bytes");
    assert_closed(&server, "team/one", &digest, &bert);
    let again = format!("/v2/team/three/blobs/uploads/?mount={digest}&from=team/one");
    send(&server, "POST", &again, &bert).expect(202);
    let anywhere = format!("/v2/team/three/blobs/uploads/?mount={digest}");
    send(&server, "POST", &anywhere, &bert).expect(202);
    assert_closed(&server, "team/three", &digest, &bert);
}

/// A manifest that names another repository's content: refused, or, where incomplete ones are allowed, taken without
/// opening what it names.
#[test]
fn a_manifest_opens_nothing_that_it_names() {
    for config in ["", "sparse_indexes = true\n"] {
        let server = Server::start_prepared(&format!("{config}{USERS}"), |dir| {
            std::fs::write(dir.join("htpasswd"), htpasswd()).expect("write a password file");
        });
        let bert = basic("bert", "secret");
        let (manifest, blob) = push(&server, "private/app", "v1", "the secret bytes");
        let own = upload(&server, "team/app", "bert's own", &bert);
        let descriptor = |kind: &str, digest: &str, size: usize| json!({"mediaType": kind, "digest": digest, "size": size});
        let empty = "application/vnd.oci.empty.v1+json";
        let layered = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "text/x",
            "config": descriptor(empty, &own, 10), "layers": [descriptor(empty, &blob, 16)],
        });
        let index = json!({
            "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(OCI_MANIFEST, &manifest, 300)],
        });
        for (kind, document) in [(OCI_MANIFEST, layered), (OCI_INDEX, index)] {
            let put = server
                .request("PUT", "/v2/team/app/manifests/thief")
                .header("Authorization", &bert)
                .header("Content-Type", kind)
                .body(document.to_string())
                .send();
            if config.is_empty() {
                assert!([400, 404].contains(&put.status), "{kind}: {}", put.text());
                assert_eq!(put.json()["errors"][0]["code"], "MANIFEST_BLOB_UNKNOWN");
            } else {
                put.expect(201);
            }
        }
        assert_closed(&server, "team/app", &blob, &bert);
        let target = format!("/v2/team/app/manifests/{manifest}");
        send(&server, "GET", &target, &bert).expect(404);
        let mount = format!("/v2/team/other/blobs/uploads/?mount={blob}&from=team/app");
        send(&server, "POST", &mount, &bert).expect(202);
    }
}

/// A subject need not be there. Naming another repository's tells nothing of it.
#[test]
fn referrers_are_those_of_the_repository_asked() {
    let server = guarded();
    let bert = basic("bert", "secret");
    let (subject, _) = push(&server, "private/app", "v1", "signed in secret");
    let attach = |repository: &str, text: &str, authorization: &str| {
        let own = upload(&server, repository, text, authorization);
        let empty = "application/vnd.oci.empty.v1+json";
        let config = json!({"mediaType": empty, "digest": own, "size": text.len()});
        let document = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "text/signature", "config": config,
            "layers": [], "subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": 300},
        });
        server
            .request("PUT", &format!("/v2/{repository}/manifests/signature"))
            .header("Authorization", authorization)
            .header("Content-Type", OCI_MANIFEST)
            .body(document.to_string())
            .send()
            .expect(201)
            .header("docker-content-digest")
            .expect("a digest")
            .to_owned()
    };
    attach("private/app", "a secret signature", &basic("anna", "secret"));
    let referrers = format!("/v2/team/app/referrers/{subject}");
    let none = send(&server, "GET", &referrers, &bert).expect(200);
    assert_eq!(none.json()["manifests"], json!([]));
    let own = attach("team/app", "bert's signature", &bert);
    let one = send(&server, "GET", &referrers, &bert).expect(200).json();
    assert_eq!(one["manifests"].as_array().map(Vec::len), Some(1), "{one}");
    assert_eq!(one["manifests"][0]["digest"], own.as_str());
}

/// A session that is under way, with every verb that it knows.
#[test]
fn an_open_upload_is_closed_to_strangers() {
    let server = guarded();
    let bert = basic("bert", "secret");
    let location = send(&server, "POST", "/v2/team/app/blobs/uploads/", &bert)
        .expect(202)
        .location();
    let begun = server
        .request("PATCH", &location)
        .header("Authorization", &bert)
        .body("begun")
        .send();
    let location = begun.expect(202).location();
    let closing = crate::harness::image::with_digest(&location, &sha256(b"begun"));
    for (method, target) in [
        ("GET", &location),
        ("PATCH", &location),
        ("PUT", &closing),
        ("DELETE", &location),
    ] {
        let nobody = server.request(method, target).body("").send();
        assert_eq!(nobody.status, 401, "{method}: {}", nobody.text());
        send(&server, method, target, &basic("carl", "secret")).expect(403);
    }
    let status = send(&server, "GET", &location, &bert).expect(204);
    assert_eq!(status.header("range"), Some("0-4"), "somebody was let in");
}
