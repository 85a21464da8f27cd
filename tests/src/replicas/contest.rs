//! Two clients push the same hundred tags, each its own image: every push is acknowledged, and whoever was last has the tag.

use std::collections::BTreeSet;
use std::thread;

use super::Cluster;
use crate::harness::http::Request;
use crate::harness::image::Image;
use crate::harness::server::Server;

const TAGS: usize = 100;

#[test]
fn two_clients_push_the_same_tags_to_one_server() {
    let mut server = Server::start();
    contest([&server, &server], &[&server]);
    server.assert_healthy();
}

#[test]
fn two_clients_push_the_same_tags_to_two_replicas() {
    let mut cluster = Cluster::start();
    let all: Vec<&Server> = cluster.replicas.iter().collect();
    contest([all[0], all[1]], &all);
    cluster.assert_healthy();
}

fn contest(pushed_to: [&Server; 2], all: &[&Server]) {
    let images = [Image::multi_platform(5000), Image::multi_platform(5100)];
    for (image, server) in images.iter().zip(pushed_to) {
        image.push(server, "contest/app", &image.digest());
    }
    thread::scope(|scope| {
        for (client, (image, server)) in images.iter().zip(pushed_to).enumerate() {
            scope.spawn(move || {
                for index in 0..TAGS {
                    // From both ends, so that they meet.
                    let index = if client == 0 { index } else { TAGS - 1 - index };
                    let target = format!("/v2/contest/app/manifests/t{index:02}");
                    let put = Request::new("PUT", server.address(), &target);
                    let put = put.header("Content-Type", image.media_type);
                    put.body(image.manifest.clone()).send().expect(201);
                }
            });
        }
    });
    let tags: Vec<String> = (0..TAGS).map(|index| format!("t{index:02}")).collect();
    let mut seen = BTreeSet::new();
    for server in all {
        let listed = server.request("GET", "/v2/contest/app/tags/list").send();
        assert_eq!(listed.expect(200).json()["tags"], serde_json::json!(tags));
        for image in &images {
            image.assert_on(server, "contest/app", &image.digest());
        }
        for tag in &tags {
            let head = server.request("HEAD", &format!("/v2/contest/app/manifests/{tag}"));
            let head = head.send().expect(200);
            let digest = head.header("docker-content-digest").expect("a digest");
            assert!(images.iter().any(|image| image.digest() == digest), "{tag}");
            seen.insert((tag.clone(), digest.to_owned()));
        }
    }
    assert_eq!(seen.len(), TAGS, "replicas do not agree");
}
