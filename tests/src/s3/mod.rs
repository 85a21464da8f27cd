//! The registry over a bucket, with SQLite.

mod clients;
mod conformance;
mod faults;
mod uploads;

use crate::harness::http::Response;
use crate::harness::image::sha256;
use crate::harness::server::Server;

/// Opens an upload session.
fn open(server: &Server, repository: &str) -> Response {
    let post = server.request("POST", &format!("/v2/{repository}/blobs/uploads/"));
    post.send().expect(202)
}

/// What a client gets is what it sent.
#[track_caller]
fn assert_blob(server: &Server, repository: &str, bytes: &[u8]) {
    let digest = sha256(bytes);
    let target = format!("/v2/{repository}/blobs/{digest}");
    let got = server.request("GET", &target).send().expect(200);
    assert!(got.body == bytes, "the blob {digest} is damaged");
}
