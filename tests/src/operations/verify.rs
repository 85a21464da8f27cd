//! A verification that takes long, is cut off, is stopped, or finds more than it should.

use std::fs;

use serde_json::Value;

use super::integrity::object;
use crate::harness::image::{noise, push_blob};
use crate::harness::processes::eventually;
use crate::harness::server::Server;

/// Blobs of one page: progress is kept after each page (registry/src/service/verify.rs).
const PAGE: u64 = 32;

fn status(server: &Server) -> Value {
    server.request("GET", "/api/v1/verify").send().expect(200).json()
}

fn start(server: &Server) {
    server.request("POST", "/api/v1/verify").send().expect(202);
}

/// Pushes `count` small blobs; returns their digests in the order in which they are read.
fn push_many(server: &Server, count: u64) -> Vec<String> {
    (0..count)
        .map(|index| push_blob(server, "app", &noise(9700 + index, 4)))
        .collect()
}

fn damage(server: &Server, digest: &str) {
    let path = object(server, digest);
    let mut bytes = fs::read(&path).expect("read the object");
    bytes[0] ^= 1;
    fs::write(&path, bytes).expect("break the object");
}

#[test]
fn it_goes_on_where_it_was_and_stops_when_told() {
    // A page goes quickly; the blob after it takes hours.
    let mut server = Server::start_configured("[verify]\nrate = \"100B\"\n");
    let first = push_many(&server, PAGE);
    let large = push_blob(&server, "app", &noise(9790, 1_000_000));
    let read = || status(&server)["verified"].as_u64();
    start(&server);
    eventually("a page is read", || read() == Some(PAGE));
    // Who asks again gets the one that runs.
    start(&server);
    assert_eq!(status(&server)["state"], "running");
    damage(&server, &first[0]);
    server.kill();
    server.configure("[verify]\nrate = \"1GiB\"\n");
    server.restart();
    eventually("it ends", || status(&server)["state"] == "finished");
    let end = status(&server);
    assert_eq!(end["verified"], PAGE + 1, "{end}");
    assert_eq!(
        end["corrupt"],
        serde_json::json!([]),
        "the first page was read again"
    );

    // A new one begins at the beginning.
    server.stop();
    server.configure("[verify]\nrate = \"100B\"\n");
    server.restart();
    start(&server);
    eventually("the damage is found", || {
        status(&server)["corrupt"] == serde_json::json!([first[0]])
    });
    let told = server.layeryard(["verify", "--stop"]).ok();
    assert!(told.starts_with("stopped"), "{told}");
    server.kill();
    server.restart();
    assert_eq!(status(&server)["state"], "stopped");
    server
        .request("HEAD", &format!("/v2/app/blobs/{large}"))
        .send()
        .expect(200);
}

/// That is rather a disk that is not the right one: what is not taken out of service needs no pushing again.
#[test]
fn too_much_damage_raises_the_alarm() {
    const QUARANTINED_MAX: usize = 10;
    let server = Server::start();
    let blobs = push_many(&server, 20);
    for digest in &blobs[..15] {
        damage(&server, digest);
    }
    let ran = server.layeryard(["verify"]).run();
    assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("rather the disk"), "{}", ran.stdout);
    let found = status(&server);
    assert_eq!(found["state"], "stopped");
    assert_eq!(found["corrupt"].as_array().map(Vec::len), Some(QUARANTINED_MAX));
    let gone = blobs.iter().filter(|digest| {
        let head = server.request("HEAD", &format!("/v2/app/blobs/{digest}")).send();
        head.status == 404
    });
    assert_eq!(gone.count(), QUARANTINED_MAX);
}
