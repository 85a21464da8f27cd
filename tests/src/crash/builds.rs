//! Kill -9 of the server in the middle of builds.

use std::thread;
use std::time::Duration;

use rand::Rng;

use super::pushes::assert_accounted_for;
use super::seeded;
use crate::harness::build::{Context, import};
use crate::harness::server::Server;
use crate::harness::tell;

/// With those of `pushes.rs` more than 200.
const INSTANTS: usize = 40;
const LIFE_MS_MAX: u64 = 1_500;

#[test]
fn server_killed_during_builds_keeps_what_it_said() {
    let mut rng = seeded("crash::builds");
    let mut server = Server::start();
    import(&server, "busybox", "busybox:latest");
    // Tag → digest of builds that were reported as done.
    let mut done = Vec::new();
    for instant in 0..INSTANTS {
        let life = Duration::from_millis(rng.random_range(0..LIFE_MS_MAX));
        let dockerfile =
            format!("FROM busybox\nRUN echo {instant} > /n\nCOPY file /file\nRUN cat /n /file > /both\n");
        let context = Context::new(&dockerfile).file("file", instant.to_string());
        let tag = format!("v{instant}");
        let ran = thread::scope(|scope| {
            let command = context
                .command(&server, &format!("app:{tag}"))
                .args(["--progress", "plain"]);
            let build = scope.spawn(move || command.run());
            thread::sleep(life);
            server.kill();
            build.join().expect("the build's client")
        });
        server.restart();
        if ran.code == Some(0) {
            done.push((tag.clone(), ran.stdout.trim().to_owned()));
        }
        for (tag, digest) in &done {
            let head = server
                .request("HEAD", &format!("/v2/app/manifests/{tag}"))
                .send()
                .expect(200);
            assert_eq!(
                head.header("docker-content-digest"),
                Some(digest.as_str()),
                "{tag}"
            );
        }
        assert_whole_or_absent(&server, &tag);
    }
    tell(&format!("{INSTANTS} kills, {} builds were done", done.len()));
    // After all that, the same machine still builds.
    Context::new("FROM busybox\nRUN echo next\n").build(&server, "app:last");
    server.assert_healthy();
    server.stop();
    assert_accounted_for(&server);
}

/// A tag that is there leads to a manifest with all its blobs, each as long as it says.
fn assert_whole_or_absent(server: &Server, tag: &str) {
    let got = server.request("GET", &format!("/v2/app/manifests/{tag}")).send();
    if got.status == 404 {
        return;
    }
    let manifest = got.expect(200).json();
    let layers = manifest["layers"].as_array().expect("layers").iter();
    for blob in layers.chain([&manifest["config"]]) {
        let digest = blob["digest"].as_str().expect("a digest");
        let got = server
            .request("GET", &format!("/v2/app/blobs/{digest}"))
            .send()
            .expect(200);
        assert_eq!(crate::harness::image::sha256(&got.body), digest);
    }
}
