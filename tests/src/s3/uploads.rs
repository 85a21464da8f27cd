//! Uploads by plain requests: what lies in the bucket in between, and what is there at the end.

use super::{assert_blob, open};
use crate::harness::http::Response;
use crate::harness::image::{noise, sha256, sha512, with_digest};
use crate::harness::processes::eventually;
use crate::harness::s3::Gateway;
use crate::harness::server::Server;

const MIB: usize = 1024 * 1024;

fn patch(server: &Server, location: &str, bytes: &[u8]) -> Response {
    server.request("PATCH", location).body(bytes).send().expect(202)
}

fn put(server: &Server, location: &str, digest: &str, bytes: &[u8]) -> Response {
    server
        .request("PUT", &with_digest(location, digest))
        .body(bytes)
        .send()
}

#[test]
fn a_blob_lies_where_the_way_it_came_says() {
    let gateway = Gateway::start();
    let mut server = gateway.serve(&[]);
    let opened = open(&server, "app");
    assert_eq!(opened.header("oci-chunk-min-length"), Some("5242880"));

    // One request, one object.
    let small = noise(1, 2 * MIB);
    put(&server, &opened.location(), &sha256(&small), &small).expect(201);
    assert_blob(&server, "app", &small);
    assert_eq!(
        (gateway.objects("blobs/").len(), gateway.objects("d/").len()),
        (1, 0)
    );

    // In one stream, larger than a part.
    let large = noise(2, 40 * MIB);
    let pieces: Vec<Vec<u8>> = large.chunks(MIB).map(<[u8]>::to_vec).collect();
    let location = open(&server, "app").location();
    let streamed = server
        .request("PATCH", &location)
        .chunked(pieces)
        .send()
        .expect(202);
    assert!(gateway.parts() >= 3);
    put(&server, &streamed.location(), &sha256(&large), b"").expect(201);
    assert_blob(&server, "app", &large);
    let range = server.request("GET", &format!("/v2/app/blobs/{}", sha256(&large)));
    let range = range
        .header("Range", "bytes=16777210-33554440")
        .send()
        .expect(206);
    assert!(range.body == large[16_777_210..33_554_441]);
    assert_eq!(
        (gateway.objects("blobs/").len(), gateway.objects("d/").len()),
        (1, 1)
    );

    // In small chunks.
    let chunked = noise(3, 7 * MIB);
    let mut location = open(&server, "app").location();
    for chunk in chunked.chunks(200_000) {
        location = patch(&server, &location, chunk).location();
    }
    assert!(!gateway.objects("f/").is_empty());
    put(&server, &location, &sha256(&chunked), b"").expect(201);
    assert_blob(&server, "app", &chunked);
    assert!(gateway.objects("f/").is_empty(), "fragments are left");
    assert_eq!(gateway.parts(), 0, "parts are left");
    server.assert_healthy();
}

/// Parts that are not an object yet can't be read: they become one, and that is hashed.
#[test]
fn an_algorithm_named_at_the_end_hashes_what_was_stored() {
    let gateway = Gateway::start();
    let mut server = gateway.serve(&[]);
    let bytes = noise(4, 20 * MIB);
    let location = open(&server, "app").location();
    let location = patch(&server, &location, &bytes).location();
    put(&server, &location, &sha512(&bytes), b"").expect(201);
    let target = format!("/v2/app/blobs/{}", sha512(&bytes));
    assert!(server.request("GET", &target).send().expect(200).body == bytes);

    let location = open(&server, "app").location();
    let location = patch(&server, &location, &bytes).location();
    put(&server, &location, &sha512(b"other"), b"").expect(400);
    // The wrong one was an object already: it is deleted.
    eventually("the wrong object is gone", || gateway.objects("d/").len() == 1);
    server.assert_healthy();
}

#[test]
fn a_session_outlives_its_server() {
    let gateway = Gateway::start();
    let mut server = gateway.serve(&[]);
    let bytes = noise(5, 30 * MIB);
    let location = open(&server, "app").location();
    let location = patch(&server, &location, &bytes[..22 * MIB + 5]).location();
    let location = patch(&server, &location, &bytes[22 * MIB + 5..23 * MIB]).location();
    server.kill();
    server.restart();
    let status = server.request("GET", &location).send().expect(204);
    assert_eq!(
        status.header("range"),
        Some(format!("0-{}", 23 * MIB - 1).as_str())
    );
    put(&server, &location, &sha256(&bytes), &bytes[23 * MIB..]).expect(201);
    assert_blob(&server, "app", &bytes);
    assert_eq!((gateway.parts(), gateway.objects("f/").len()), (0, 0));
}

#[test]
fn what_was_begun_and_dropped_is_removed() {
    let gateway = Gateway::start();
    let server = gateway.serve(&[]);
    let bytes = noise(6, 25 * MIB);
    let location = open(&server, "app").location();
    let location = patch(&server, &location, &bytes[..24 * MIB]).location();
    let location = patch(&server, &location, &bytes[24 * MIB..]).location();
    assert!(gateway.parts() > 0 && !gateway.objects("f/").is_empty());
    server.request("DELETE", &location).send().expect(204);
    assert_eq!(
        (gateway.parts(), gateway.objects("").len()),
        (0, 1),
        "{:?}",
        gateway.objects("")
    );

    // A blob that is there already is linked; what came with the second upload goes.
    for _ in 0..2 {
        let location = open(&server, "app").location();
        let location = patch(&server, &location, &bytes).location();
        put(&server, &location, &sha256(&bytes), b"").expect(201);
    }
    eventually("only one object and no part", || {
        gateway.parts() == 0 && gateway.objects("d/").len() == 1
    });
    assert_blob(&server, "app", &bytes);
}
