//! Reading, and deleting.

use serde_json::json;

use crate::harness::http::Response;
use crate::harness::image::{Image, OCI_CONFIG, OCI_MANIFEST, descriptor, noise, push_blob, sha256};
use crate::harness::server::Server;

#[test]
fn blob_ranges_are_those_of_http() {
    let server = Server::start();
    let bytes = noise(20, 10_000);
    let target = format!("/v2/app/blobs/{}", push_blob(&server, "app", &bytes));
    for (range, from, to) in [
        ("bytes=0-0", 0, 0),
        ("bytes=10-99", 10, 99),
        ("bytes=9000-", 9_000, 9_999),
        ("bytes=-1", 9_999, 9_999),
        ("bytes=-20000", 0, 9_999),
        ("bytes=9999-50000", 9_999, 9_999),
    ] {
        let got = server
            .request("GET", &target)
            .header("Range", range)
            .send()
            .expect(206);
        assert_eq!(
            got.header("content-range"),
            Some(format!("bytes {from}-{to}/10000").as_str()),
            "{range}"
        );
        assert!(got.body == bytes[from..=to], "{range}");
    }
    for range in [
        "bytes=10000-",
        "bytes=500-0",
        "bytes=-0",
        "bytes=99999999999999999999-",
    ] {
        let got = server.request("GET", &target).header("Range", range).send();
        assert_eq!(got.status, 416, "{range}: {}", got.text());
    }
    // Units, and sets of ranges, that a server does not know are ignored.
    for range in ["lines=1-2", "bytes", ""] {
        let got = server.request("GET", &target).header("Range", range).send();
        assert!(got.status == 200 && got.body == bytes, "{range}: {}", got.status);
    }
}

#[test]
fn manifest_comes_back_as_it_was_sent() {
    let server = Server::start();
    let image = Image::small(30);
    image.push(&server, "deep/er/app", "v1");
    image.assert_on(&server, "deep/er/app", "v1");
    let by_tag = server
        .request("HEAD", "/v2/deep/er/app/manifests/v1")
        .header("Accept", OCI_MANIFEST)
        .send()
        .expect(200);
    assert_eq!(
        by_tag.header("content-length"),
        Some(image.manifest.len().to_string().as_str())
    );
    assert_eq!(by_tag.header("content-type"), Some(OCI_MANIFEST));
    // Whatever Accept says: a stored manifest is never converted.
    let docker = server.request("GET", "/v2/deep/er/app/manifests/v1");
    let docker = docker
        .header("Accept", "application/vnd.docker.distribution.manifest.v2+json")
        .send()
        .expect(200);
    assert_eq!(docker.header("content-type"), Some(OCI_MANIFEST));
}

#[test]
fn index_comes_back_with_its_children() {
    let server = Server::start();
    let index = Image::multi_platform(40);
    index.push(&server, "multi", "latest");
    index.assert_on(&server, "multi", "latest");
    index.assert_on(&server, "multi", &index.digest());
}

#[test]
fn nothing_is_compressed_on_the_way() {
    let server = Server::start();
    let zeros = vec![0; 100_000];
    let target = format!("/v2/app/blobs/{}", push_blob(&server, "app", &zeros));
    let got = server
        .request("GET", &target)
        .header("Accept-Encoding", "gzip, zstd")
        .send()
        .expect(200);
    assert_eq!((got.header("content-encoding"), got.body.len()), (None, 100_000));
}

#[test]
fn moved_tag_leaves_the_old_manifest_by_digest() {
    let server = Server::start();
    let (old, new) = (Image::small(50), Image::small(51));
    old.push(&server, "app", "latest");
    new.push(&server, "app", "latest");
    new.assert_on(&server, "app", "latest");
    old.assert_on(&server, "app", &old.digest());
}

#[test]
fn deleted_tag_leaves_the_manifest_and_deleted_manifest_takes_its_tags() {
    let server = Server::start();
    let image = Image::small(60);
    for tag in ["a", "b", "c"] {
        image.push(&server, "app", tag);
    }
    server.request("DELETE", "/v2/app/manifests/a").send().expect(202);
    server
        .request("GET", "/v2/app/manifests/a")
        .send()
        .expect_error(404, "MANIFEST_UNKNOWN");
    image.assert_on(&server, "app", "b");

    let by_digest = format!("/v2/app/manifests/{}", image.digest());
    server.request("DELETE", &by_digest).send().expect(202);
    for target in ["/v2/app/manifests/b", "/v2/app/manifests/c", by_digest.as_str()] {
        server
            .request("GET", target)
            .send()
            .expect_error(404, "MANIFEST_UNKNOWN");
    }
    server
        .request("DELETE", &by_digest)
        .send()
        .expect_error(404, "MANIFEST_UNKNOWN");
    // A push makes it whole again.
    image.push(&server, "app", "d");
    image.assert_on(&server, "app", "d");
}

#[test]
fn blob_that_a_manifest_needs_is_not_deleted() {
    let server = Server::start();
    let image = Image::small(70);
    image.push(&server, "app", "v1");
    let used = format!("/v2/app/blobs/{}", sha256(&image.blobs[1]));
    server.request("DELETE", &used).send().expect(405);
    image.assert_on(&server, "app", "v1");

    let unused = format!("/v2/app/blobs/{}", push_blob(&server, "app", b"nobody's"));
    server.request("DELETE", &unused).send().expect(202);
    server.request("HEAD", &unused).send().expect(404);
    server
        .request("GET", &unused)
        .send()
        .expect_error(404, "BLOB_UNKNOWN");
    push_blob(&server, "app", b"nobody's");
    server.request("HEAD", &unused).send().expect(200);
}

#[test]
fn referrers_are_found_filtered_and_forgotten() {
    let server = Server::start();
    let image = Image::small(80);
    image.push(&server, "app", "v1");
    let config = b"{}".to_vec();
    push_blob(&server, "app", &config);
    let mut artifacts = Vec::new();
    for (kind, name) in [
        ("application/example.sbom", "one"),
        ("application/example.signature", "two"),
    ] {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": kind,
            "config": descriptor("application/vnd.oci.empty.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.empty.v1+json", &config)],
            "subject": descriptor(OCI_MANIFEST, &image.manifest), "annotations": {"name": name},
        });
        let bytes = manifest.to_string().into_bytes();
        let put = server.request("PUT", &format!("/v2/app/manifests/{}", sha256(&bytes)));
        let put = put
            .header("Content-Type", OCI_MANIFEST)
            .body(bytes.clone())
            .send()
            .expect(201);
        assert_eq!(put.header("oci-subject"), Some(image.digest().as_str()));
        artifacts.push(sha256(&bytes));
    }

    let all = server
        .request("GET", &format!("/v2/app/referrers/{}", image.digest()))
        .send()
        .expect(200);
    assert_eq!(all.json()["manifests"].as_array().map(Vec::len), Some(2));
    assert_eq!(all.header("oci-filters-applied"), None);

    let filter = format!(
        "/v2/app/referrers/{}?artifactType=application/example.sbom",
        image.digest()
    );
    let one = server.request("GET", &filter).send().expect(200);
    assert_eq!(one.header("oci-filters-applied"), Some("artifactType"));
    let found = &one.json()["manifests"];
    assert_eq!(found.as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&found[0]["digest"], &found[0]["annotations"]["name"]),
        (&json!(artifacts[0]), &json!("one"))
    );

    server
        .request("DELETE", &format!("/v2/app/manifests/{}", artifacts[0]))
        .send()
        .expect(202);
    let left = server
        .request("GET", &format!("/v2/app/referrers/{}", image.digest()))
        .send()
        .expect(200);
    assert_eq!(left.json()["manifests"].as_array().map(Vec::len), Some(1));

    let nobody = format!("/v2/no/such/referrers/{}", sha256(b"nothing"));
    let empty = server.request("GET", &nobody).send().expect(200);
    assert_eq!(empty.json()["manifests"], json!([]));
}

#[test]
fn manifest_needs_its_blobs_in_its_own_repository() {
    let server = Server::start();
    let image = Image::small(90);
    image.push(&server, "first", "v1");
    let put = server
        .request("PUT", "/v2/second/manifests/v1")
        .header("Content-Type", OCI_MANIFEST);
    assert_blob_unknown(&put.body(image.manifest).send());
    server
        .request("GET", "/v2/second/manifests/v1")
        .send()
        .expect(404);
    let config_only = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, b"never pushed"), "layers": [],
    });
    let put = server
        .request("PUT", "/v2/second/manifests/v1")
        .header("Content-Type", OCI_MANIFEST);
    assert_blob_unknown(&put.body(config_only.to_string()).send());
}

/// The specification names the code; for the status 400 and 404 are both in use.
#[track_caller]
fn assert_blob_unknown(answer: &Response) {
    assert!([400, 404].contains(&answer.status), "{}", answer.text());
    assert_eq!(answer.json()["errors"][0]["code"], "MANIFEST_BLOB_UNKNOWN");
}
