//! Real Docker engines push, pull and run.

use crate::harness::engine::{self, Engine};
use crate::harness::server::Server;

#[test]
fn debian_engine_pushes_a_debian_image_and_pulls_it_back() {
    push_and_pull_back(engine::debian());
}

#[test]
fn newest_engine_pushes_a_debian_image_and_pulls_it_back() {
    push_and_pull_back(engine::newest());
}

/// Both engines, one registry: what the old one pushed (Docker types) the new one runs, and the other way round (OCI).
#[test]
fn engines_run_what_the_other_pushed() {
    let server = Server::start();
    for (from, to, name) in [
        (engine::debian(), engine::newest(), "old"),
        (engine::newest(), engine::debian(), "new"),
    ] {
        let image = format!("{}/from-{name}:v1", server.host());
        from.import("busybox", &image);
        from.docker(["push", &image]).ok();
        let said = to
            .docker([
                "run",
                "--rm",
                "--network=none",
                &image,
                "/bin/echo",
                "hello from",
                name,
            ])
            .ok();
        assert_eq!(said, format!("hello from {name}"));
    }
}

fn push_and_pull_back(engine: &Engine) {
    let mut server = Server::start();
    let image = format!("{}/team/debian:bookworm", server.host());
    engine.import("debian", &image);
    let id = engine.docker(["inspect", "--format={{.Id}}", &image]).ok();
    engine.docker(["push", &image]).ok();
    engine.docker(["rmi", "--force", &image]).ok();
    engine.docker(["inspect", &image]).fails();

    engine.docker(["pull", &image]).ok();
    assert_eq!(engine.docker(["inspect", "--format={{.Id}}", &image]).ok(), id);
    let release = engine
        .docker([
            "run",
            "--rm",
            "--network=none",
            &image,
            "cat",
            "/etc/debian_version",
        ])
        .ok();
    assert!(release.starts_with("12"), "{release}");

    // A second push finds every layer there.
    let again = engine.docker(["push", &image]).ok();
    assert!(
        again.contains("already exists") || again.contains("Layer already"),
        "{again}"
    );
    server.assert_healthy();
}
