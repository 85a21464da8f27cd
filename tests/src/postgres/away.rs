//! The database or the bucket is away, as probes and clients see it.

use super::Backends;
use crate::harness::image::{Image, noise, sha256};
use crate::harness::processes::eventually;
use crate::harness::server::Server;

#[test]
fn what_is_away_is_named_and_comes_back() {
    let mut backends = Backends::start();
    let mut server = backends.serve(&["LAYERYARD_DATABASE__WAIT_MAX=1s"]);
    let image = Image::small(3100);
    image.push(&server, "app", "v1");
    server.request("GET", "/readyz").send().expect(200);

    backends.gateway.pause();
    assert_unready(&server, "blob store", "database");
    backends.gateway.resume();
    eventually("the bucket is back", || {
        server.request("GET", "/readyz").send().status == 200
    });

    backends.postgres.stop();
    assert_unready(&server, "database", "blob store");
    let absent = sha256(&noise(3101, 10));
    for (method, target) in [
        ("GET", "/v2/app/manifests/v1".to_owned()),
        ("GET", "/v2/app/tags/list".to_owned()),
        ("GET", format!("/v2/app/blobs/{absent}")),
        ("POST", "/v2/app/blobs/uploads/".to_owned()),
        ("PUT", "/v2/app/manifests/v2".to_owned()),
        ("DELETE", "/v2/app/manifests/v1".to_owned()),
    ] {
        let request = server.request(method, &target);
        let request = request.header("Content-Type", image.media_type);
        let answer = request
            .body(image.manifest.clone())
            .send()
            .expect_error(503, "UNAVAILABLE");
        assert!(answer.header("retry-after").is_some(), "{method} {target}");
    }
    backends.postgres.resume();
    eventually("the database is back", || {
        server.request("GET", "/readyz").send().status == 200
    });
    image.assert_on(&server, "app", "v1");
    Image::small(3102).push(&server, "app", "v2");
    server.assert_healthy();
}

/// The server lives, and says which part keeps it from working.
fn assert_unready(server: &Server, missing: &str, there: &str) {
    let told = server.request("GET", "/readyz").send();
    let told = told.expect_error(503, "UNAVAILABLE").text();
    assert!(told.contains(missing) && !told.contains(there), "{told}");
    server.request("GET", "/healthz").send().expect(200);
}
