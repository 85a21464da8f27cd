//! Broken objects are found and healed; a lost or old database comes back from the bucket.

use std::fs;

use super::Backends;
use crate::harness::image::{Image, push_blob, sha256};
use crate::harness::processes::eventually;
use crate::harness::server::Server;
use crate::harness::tool::{Ran, Tool};

/// The name of a blob's object.
fn object(backends: &Backends, digest: &str) -> String {
    let hex = digest.strip_prefix("sha256:").expect("a sha256");
    let objects = backends.gateway.objects("blobs/");
    let found = objects.into_iter().find(|name| name.contains(hex));
    found.expect("the object is there")
}

#[test]
fn a_corrupt_object_is_quarantined_and_healed_by_a_push() {
    let backends = Backends::start();
    let server = backends.serve(&["LAYERYARD_VERIFY__MISSING_AGAIN_AFTER=0s"]);
    let (broken, gone, fine) = (Image::small(9300), Image::small(9310), Image::small(9320));
    for (image, tag) in [(&broken, "broken"), (&gone, "gone"), (&fine, "fine")] {
        image.push(&server, "app", tag);
    }
    server.layeryard(["verify"]).ok();
    let corrupt = sha256(&broken.blobs[1]);
    let path = backends.gateway.file(&object(&backends, &corrupt));
    let mut bytes = fs::read(&path).expect("read the object");
    bytes[100] ^= 1;
    fs::write(&path, bytes).expect("break the object");
    let missing = sha256(&gone.blobs[1]);
    fs::remove_file(backends.gateway.file(&object(&backends, &missing))).expect("lose the object");

    let ran = server.layeryard(["verify"]).fails();
    assert!(ran.stdout.contains(&format!("corrupt  {corrupt}")), "{ran}");
    let status = || server.layeryard(["verify", "--status"]).run();
    eventually("the verification ends", || {
        status().stdout.starts_with("finished")
    });
    let ended = status();
    assert!(ended.stdout.contains(&format!("missing  {missing}")), "{ended}");
    for digest in [&corrupt, &missing] {
        server
            .request("GET", &format!("/v2/app/blobs/{digest}"))
            .send()
            .expect_error(404, "BLOB_UNKNOWN");
    }
    fine.assert_on(&server, "app", "fine");
    push_blob(&server, "app", &broken.blobs[1]);
    push_blob(&server, "app", &gone.blobs[1]);
    server.layeryard(["verify"]).ok();
    broken.assert_on(&server, "app", "broken");
    gone.assert_on(&server, "app", "gone");
}

/// `layeryard rebuild-metadata` of a database over this bucket.
fn rebuild(backends: &Backends, server: &Server, database: &str) -> Ran {
    Tool::layeryard()
        .args(["rebuild-metadata", "--data-dir"])
        .arg(server.data_dir())
        .envs(backends.gateway.settings())
        .envs([backends.postgres.setting_of(database)])
        .run()
}

#[test]
fn a_lost_or_old_database_comes_back_from_the_bucket() {
    let backends = Backends::start();
    let mut server = backends.serve(&[]);
    let (first, second) = (Image::small(9330), Image::multi_platform(9340));
    let large = Image::for_platform(9345, "amd64", 20_000_000);
    first.push(&server, "team/app", "v1");
    second.push(&server, "team/app", "moved");
    server.stop();
    backends.postgres.create("old", "postgres");
    server.restart();
    first.push(&server, "team/app", "moved");
    second.push(&server, "team/app", "v2");
    large.push(&server, "team/large", "v1");
    server
        .request("DELETE", "/v2/team/app/manifests/v1")
        .send()
        .expect(202);
    server.stop();

    // The old one: nothing may be changed, nothing is deleted; and it is in use, so that nothing is put on top of it.
    let mut stale = backends.serve_database("old", &[]);
    let refused = stale.request("POST", "/v2/team/app/blobs/uploads/").send();
    let refused = refused.expect_error(503, "UNAVAILABLE");
    assert!(refused.text().contains("rebuild-metadata"), "{}", refused.text());
    stale
        .request("GET", "/v2/team/app/manifests/v2")
        .send()
        .expect(404);
    stale.stop();
    let told = rebuild(&backends, &stale, "old");
    assert!(
        told.code != Some(0) && told.stderr.contains("make an empty one"),
        "{told}"
    );

    backends.postgres.create("fresh", "template0");
    let ran = rebuild(&backends, &stale, "fresh");
    assert_eq!(ran.code, Some(0), "{ran}");
    let rebuilt = backends.serve_database("fresh", &[]);
    first.assert_on(&rebuilt, "team/app", "moved");
    second.assert_on(&rebuilt, "team/app", "v2");
    large.assert_on(&rebuilt, "team/large", "v1");
    rebuilt
        .request("GET", "/v2/team/app/manifests/v1")
        .send()
        .expect(404);
    rebuilt.layeryard(["verify"]).ok();
    Image::small(9350).push(&rebuilt, "team/app", "v3");
}
