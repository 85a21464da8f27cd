//! Engines offer every layer from where they have seen it last, whoever may read there. A refusal would end the push: the
//! token has what is allowed, the mount opens an upload, and the layer is sent.

use std::fs;

use super::*;
use crate::harness::balancer::Balancer;
use crate::harness::engine::{self, Engine};

#[test]
fn debian_engine_sends_what_it_may_not_mount() {
    sends_what_it_may_not_mount(engine::debian());
}

#[test]
fn newest_engine_sends_what_it_may_not_mount() {
    sends_what_it_may_not_mount(engine::newest());
}

fn sends_what_it_may_not_mount(engine: &Engine) {
    let server = guarded();
    // Before the server only to see what comes by.
    let proxy = Balancer::start(&[server.address()]);
    let host = proxy.address().to_string();
    let docker = |user: &str, args: &[&str]| {
        let config = server.scratch().join(user);
        fs::create_dir_all(&config).expect("make a directory");
        engine.docker(args).env("DOCKER_CONFIG", &config)
    };
    for user in ["anna", "bert"] {
        docker(user, &["login", "-u", user, "-p", "secret", &host]).ok();
    }
    let (private, own) = (format!("{host}/private/base:v1"), format!("{host}/team/app:v1"));
    engine.import("busybox", &private);
    docker("anna", &["push", &private]).ok();
    docker("anna", &["tag", &private, &own]).ok();
    docker("bert", &["push", &own]).ok();
    let tried = proxy.requests("POST /v2/team/app/blobs/uploads/?");
    let mounts: Vec<&String> = tried.iter().filter(|line| line.contains("mount=")).collect();
    assert!(
        mounts.iter().any(|line| line.contains("from=private")),
        "nothing was offered: {tried:#?}"
    );
    assert!(mounts.iter().all(|line| !line.ends_with("201")), "{mounts:#?}");
    docker("bert", &["rmi", "--force", &private, &own]).ok();
    docker("bert", &["pull", &own]).ok();
    docker("bert", &["pull", &private]).fails();
    docker("bert", &["rmi", "--force", &own]).ok();
}
