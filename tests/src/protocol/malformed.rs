//! Requests that are wrong. Each gets a clear error of the specification, and the server goes on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::image::{
    Image, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, descriptor, push_blob, sha256, with_digest,
};
use crate::harness::server::Server;

#[test]
fn malformed_digests() {
    let mut server = Server::start();
    let bad = [
        "sha256:baddigeststring",
        "sha256:",
        "sha256",
        "sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "sha256:%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "sha512:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ":",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855%00",
    ];
    for digest in bad {
        for method in ["GET", "HEAD", "DELETE"] {
            let answer = server.request(method, &format!("/v2/app/blobs/{digest}")).send();
            assert!(
                [400, 404].contains(&answer.status),
                "{method} {digest}: {}",
                answer.status
            );
            if method != "HEAD" {
                let code = answer.json()["errors"][0]["code"].clone();
                assert!(
                    ["DIGEST_INVALID", "BLOB_UNKNOWN", "NAME_INVALID", "NOT_FOUND"]
                        .contains(&code.as_str().unwrap_or("")),
                    "{digest}: {code}"
                );
            }
        }
        let post = server.request("POST", &format!("/v2/app/blobs/uploads/?digest={digest}"));
        let post = post
            .header("Content-Type", "application/octet-stream")
            .body("x")
            .send();
        assert_eq!(post.status, 400, "POST {digest}: {}", post.text());
        post.expect_error(400, "DIGEST_INVALID");
        let location = server
            .request("POST", "/v2/app/blobs/uploads/")
            .send()
            .expect(202)
            .location();
        let put = server
            .request("PUT", &with_digest(&location, digest))
            .body("x")
            .send();
        put.expect_error(400, "DIGEST_INVALID");
        let referrers = server
            .request("GET", &format!("/v2/app/referrers/{digest}"))
            .send();
        assert!(
            [400, 404].contains(&referrers.status),
            "referrers {digest}: {}",
            referrers.status
        );
    }
    server.assert_healthy();
}

#[test]
fn malformed_names_and_tags() {
    let mut server = Server::start();
    let manifest = Image::small(200).manifest;
    let long = "a".repeat(300);
    for name in [
        "UPPER",
        "a//b",
        "-a",
        "a-",
        "a/../b",
        "%2e%2e/%2e%2e/etc",
        "a%2f..%2fb",
        "ä",
        "a b",
        ".",
        long.as_str(),
    ] {
        let name = name.replace(' ', "%20").replace('ä', "%C3%A4");
        for target in [
            "tags/list".to_owned(),
            "manifests/latest".to_owned(),
            format!("blobs/{}", sha256(b"")),
        ] {
            let answer = server.request("GET", &format!("/v2/{name}/{target}")).send();
            assert!(
                [400, 404].contains(&answer.status),
                "{name}/{target}: {}",
                answer.status
            );
            assert!(
                answer.json()["errors"][0]["code"].is_string(),
                "{name}/{target}: {}",
                answer.text()
            );
        }
        let post = server
            .request("POST", &format!("/v2/{name}/blobs/uploads/"))
            .send();
        assert!([400, 404].contains(&post.status), "{name}: {}", post.status);
        assert!(
            post.json()["errors"][0]["code"].is_string(),
            "{name}: {}",
            post.text()
        );
    }
    let long = "t".repeat(129);
    for tag in [
        "-begins",
        ".begins",
        "with%20space",
        "with%2Fslash",
        "sha256:short",
        long.as_str(),
    ] {
        let put = server
            .request("PUT", &format!("/v2/app/manifests/{tag}"))
            .header("Content-Type", OCI_MANIFEST);
        let put = put.body(manifest.clone()).send();
        assert!(
            (400..500).contains(&put.status),
            "{tag}: {} {}",
            put.status,
            put.text()
        );
        assert!(
            put.json()["errors"][0]["message"].is_string(),
            "{tag}: {}",
            put.text()
        );
    }
    server.assert_healthy();
}

#[test]
fn malformed_manifests() {
    let mut server = Server::start();
    let image = Image::small(210);
    image.push(&server, "app", "good");
    let config = descriptor(OCI_CONFIG, &image.blobs[0]);
    let layer = descriptor(OCI_LAYER, &image.blobs[1]);
    let with = |change: &dyn Fn(&mut Value)| {
        let mut manifest =
            json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer]});
        change(&mut manifest);
        manifest.to_string()
    };
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let cases: Vec<(&str, String)> = vec![
        ("empty", String::new()),
        ("no JSON", "not json".into()),
        ("an array", "[]".into()),
        ("null", "null".into()),
        ("cut off", with(&|_| {})[..40].to_owned()),
        ("nothing in it", "{}".into()),
        ("schema 1", with(&|m| m["schemaVersion"] = json!(1))),
        ("another media type", with(&|m| m["mediaType"] = json!(OCI_INDEX))),
        (
            "manifest and index at once",
            with(&|m| m["manifests"] = json!([])),
        ),
        (
            "no config",
            with(&|m| drop(m.as_object_mut().expect("an object").remove("config"))),
        ),
        ("layers are no list", with(&|m| m["layers"] = json!({}))),
        (
            "layer with a bad digest",
            with(&|m| m["layers"][0]["digest"] = json!("sha256:short")),
        ),
        (
            "layer with a negative size",
            with(&|m| m["layers"][0]["size"] = json!(-1)),
        ),
        (
            "layer without a size",
            with(&|m| drop(m["layers"][0].as_object_mut().expect("an object").remove("size"))),
        ),
        ("digest is a number", with(&|m| m["config"]["digest"] = json!(5))),
        ("too deep", format!("{{\"schemaVersion\":2,\"config\":{deep}}}")),
        ("text after the end", with(&|_| {}) + "trailing"),
    ];
    for (name, manifest) in cases {
        let put = server
            .request("PUT", "/v2/app/manifests/bad")
            .header("Content-Type", OCI_MANIFEST)
            .body(manifest);
        let answer = put.send();
        assert_eq!(answer.status, 400, "{name}: {}", answer.text());
        answer.expect_error(400, "MANIFEST_INVALID");
    }
    server.request("GET", "/v2/app/manifests/bad").send().expect(404);
    image.assert_on(&server, "app", "good");
    server.assert_healthy();
}

#[test]
fn manifest_under_another_digest_or_type() {
    let mut server = Server::start();
    let image = Image::small(220);
    image.push(&server, "app", "good");
    let wrong = format!("/v2/app/manifests/{}", sha256(b"another"));
    let put = server
        .request("PUT", &wrong)
        .header("Content-Type", OCI_MANIFEST)
        .body(image.manifest.clone());
    put.send().expect_error(400, "DIGEST_INVALID");
    for content_type in ["text/html", "application/vnd.oci.image.index.v1+json"] {
        let put = server
            .request("PUT", "/v2/app/manifests/bad")
            .header("Content-Type", content_type);
        let answer = put.body(image.manifest.clone()).send();
        assert!(
            [400, 415].contains(&answer.status),
            "{content_type:?}: {} {}",
            answer.status,
            answer.text()
        );
    }
    server.request("GET", "/v2/app/manifests/bad").send().expect(404);
    server.assert_healthy();
}

#[test]
fn index_of_unknown_children() {
    let server = Server::start();
    let index = json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX,
        "manifests": [{"mediaType": OCI_MANIFEST, "digest": "not-a-digest", "size": 3}],
    });
    let put = server
        .request("PUT", "/v2/app/manifests/bad")
        .header("Content-Type", OCI_INDEX);
    put.body(index.to_string())
        .send()
        .expect_error(400, "MANIFEST_INVALID");
}

#[test]
fn unknown_paths_and_methods_answer_json() {
    let mut server = Server::start();
    push_blob(&server, "app", b"x");
    for target in [
        "/v2/app",
        "/v2/app/nothing",
        "/v2/app/blobs",
        "/v2//",
        "/v2/_unknown/list",
        "/v2/app/tags/list/more",
    ] {
        let answer = server.request("GET", target).send();
        assert_eq!(answer.status, 404, "{target}");
        assert!(
            answer.json()["errors"][0]["code"].is_string(),
            "{target}: {}",
            answer.text()
        );
    }
    for (method, target) in [
        ("POST", "/v2/"),
        ("PUT", "/v2/app/tags/list"),
        ("PATCH", "/v2/app/manifests/x"),
    ] {
        let answer = server.request(method, target).send();
        assert_eq!(answer.status, 405, "{method} {target}: {}", answer.text());
        assert!(
            answer.json()["errors"][0]["code"].is_string(),
            "{method} {target}: {}",
            answer.text()
        );
    }
    server.assert_healthy();
}

#[test]
fn bytes_that_are_no_http() {
    let mut server = Server::start();
    let endless = format!(
        "GET /v2/ HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "y".repeat(2 << 20)
    );
    let cases: [&[u8]; 6] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET /v2/ HTTP/9.9\r\n\r\n",
        b"POST /v2/app/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"PATCH /v2/app/blobs/uploads/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        endless.as_bytes(),
    ];
    for bytes in cases {
        let mut stream = TcpStream::connect(server.address()).expect("connect");
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("set a timeout");
        // The server may hang up at any point; only its health counts.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    server.assert_healthy();
}
