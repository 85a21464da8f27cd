//! Deleted, explained, restored, purged; with real clients and delays of seconds.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use walkdir::WalkDir;

use crate::harness::image::{Image, sha256};
use crate::harness::server::Server;
use crate::harness::tool::Tool;

/// Delays short enough to wait for.
const QUICK: &str = "\
[limits]
undelete_window = \"12s\"
review_delay = \"5s\"
delete_delay = \"0s\"
collect_interval = \"200ms\"
";

/// A window that no test outlives.
const PATIENT: &str = "\
[limits]
review_delay = \"5s\"
delete_delay = \"0s\"
collect_interval = \"200ms\"
";

fn skopeo() -> Tool {
    Tool::debian("skopeo").args(["--insecure-policy", "--override-os=linux"])
}

fn push(server: &Server, image: &Image, name: &str) {
    let dir = server
        .scratch()
        .join(format!("layout-{}", name.replace(['/', ':'], "-")));
    image.write_layout(&dir, "v1");
    skopeo()
        .args(["copy", "--all", "--dest-tls-verify=false"])
        .arg(format!("oci:{}:v1", dir.display()))
        .arg(format!("docker://{}/{name}", server.host()))
        .ok();
}

fn objects(server: &Server) -> usize {
    WalkDir::new(server.data_dir().join("blobs"))
        .into_iter()
        .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.file_type().is_file()))
        .count()
}

#[track_caller]
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within two minutes");
        thread::sleep(Duration::from_millis(100));
    }
}

fn metric(server: &Server, name: &str) -> f64 {
    let text = server.request("GET", "/metrics").send().expect(200).text();
    let line = text
        .lines()
        .find(|line| line.starts_with(name))
        .unwrap_or_default()
        .to_owned();
    line.rsplit(' ')
        .next()
        .and_then(|value| value.parse().ok())
        .unwrap_or(0.0)
}

#[test]
fn a_deleted_image_is_explained_restored_and_in_the_end_gone() {
    let server = Server::start_configured(QUICK);
    let (kept, gone) = (Image::small(900), Image::multi_platform(910));
    push(&server, &kept, "story/app:v1");
    push(&server, &gone, "story/app:v2");
    let told = server
        .layeryard(["gc", "--dry-run", "--repository", "story/app"])
        .ok();
    assert!(told.contains("kept: tag v1 names it"), "{told}");
    assert!(told.contains("lists it"), "{told}");

    skopeo()
        .args(["delete", "--tls-verify=false"])
        .arg(format!("docker://{}/story/app:v2", server.host()))
        .ok();
    let target = "/v2/story/app/manifests/v2";
    server
        .request("GET", target)
        .send()
        .expect_error(404, "MANIFEST_UNKNOWN");
    let told = server.layeryard(["gc", "--dry-run"]).ok();
    assert!(told.contains("it is in the trash and can be restored"), "{told}");
    let trash = server.layeryard(["trash", "story/app"]).ok();
    assert!(
        trash.contains("story/app:v2") && trash.contains(&gone.digest()),
        "{trash}"
    );
    let restored = server.layeryard(["undelete", "story/app:v2"]).ok();
    assert!(restored.contains("story/app:v2"), "{restored}");
    gone.assert_on(&server, "story/app", "v2");

    let before = objects(&server);
    let delete = server.request("DELETE", &format!("/v2/story/app/manifests/{}", gone.digest()));
    delete.send().expect(202);
    // Two of its own blobs for each of three platforms.
    eventually("the bytes are gone", || objects(&server) == before - 6);
    eventually("it is counted", || {
        metric(&server, "layeryard_gc_freed_bytes_total") > 6000.0
    });
    let failed = server.layeryard(["undelete", "story/app:v2"]).fails();
    assert!(failed.stderr.contains("purged for good"), "{failed}");
    kept.assert_on(&server, "story/app", "v1");
    let out = server.scratch().join("out");
    skopeo()
        .args(["copy", "--src-tls-verify=false"])
        .arg(format!("docker://{}/story/app:v1", server.host()))
        .arg(format!("oci:{}:v1", out.display()))
        .ok();
    let status = server.layeryard(["gc", "status"]).ok();
    assert!(status.contains("due: 0 manifests, 0 blobs"), "{status}");
}

#[test]
fn a_deleted_tag_comes_back_unless_it_is_taken() {
    let server = Server::start_configured(PATIENT);
    let (first, second) = (Image::small(920), Image::small(921));
    first.push(&server, "tags/app", "latest");
    server
        .request("DELETE", "/v2/tags/app/manifests/latest")
        .send()
        .expect(202);
    second.push(&server, "tags/app", "latest");
    let taken = server.layeryard(["undelete", "tags/app:latest"]).fails();
    assert!(
        taken.stderr.contains("names") && taken.stderr.contains("force"),
        "{taken}"
    );
    second.assert_on(&server, "tags/app", "latest");
    server.layeryard(["undelete", "--force", "tags/app:latest"]).ok();
    first.assert_on(&server, "tags/app", "latest");
    // Moved away by force, the other one can be had by its digest.
    server
        .layeryard([
            "undelete",
            "--force",
            &format!("tags/app:latest@{}", second.digest()),
        ])
        .ok();
    second.assert_on(&server, "tags/app", "latest");
    let never = server.layeryard(["undelete", "tags/app:never"]).fails();
    assert!(never.stderr.contains("tag never"), "{never}");
}

#[test]
fn a_blob_in_use_is_not_deleted_and_says_who_uses_it() {
    let server = Server::start_configured(PATIENT);
    let image = Image::multi_platform(930);
    image.push(&server, "used/app", "v1");
    let child = &image.children[0];
    let layer = sha256(&child.blobs[1]);
    let refused = server
        .request("DELETE", &format!("/v2/used/app/blobs/{layer}"))
        .send()
        .expect_error(405, "DENIED");
    assert!(refused.text().contains(&child.digest()), "{}", refused.text());
    let refused = server
        .request("DELETE", &format!("/v2/used/app/manifests/{}", child.digest()))
        .send()
        .expect_error(405, "DENIED");
    assert!(refused.text().contains(&image.digest()), "{}", refused.text());
    let told = server
        .layeryard(["gc", "--dry-run", "--repository", &format!("used/app@{layer}")])
        .ok();
    assert!(
        told.contains(&format!("manifest {} refers to it", child.digest())),
        "{told}"
    );
}

#[test]
fn blobs_that_nothing_ever_names_go() {
    let server = Server::start_configured(QUICK);
    for seed in 0..5 {
        crate::harness::image::push_blob(&server, "stray/app", &crate::harness::image::noise(seed, 4096));
    }
    let run = server.layeryard(["gc", "run"]).ok();
    assert!(run.contains("manifests purged"), "{run}");
    eventually("the strays are gone", || {
        metric(&server, "layeryard_gc_freed_objects_total") >= 5.0 && objects(&server) == 0
    });
    assert!(is_empty_of_uploads(&server.data_dir()));
}

fn is_empty_of_uploads(data_dir: &Path) -> bool {
    std::fs::read_dir(data_dir.join("uploads")).is_ok_and(|mut entries| entries.next().is_none())
}

/// Clients push, pull and delete the same layers as fast as they can, under a collector that is as fast.
#[test]
fn pushes_race_with_collection() {
    let server = Server::start_configured(
        "[limits]\nundelete_window = \"300ms\"\nreview_delay = \"5s\"\ndelete_delay = \"0s\"\ncollect_interval = \"20ms\"\n",
    );
    let deadline = Instant::now() + Duration::from_secs(8);
    let pushes: usize = thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|client: u64| {
                let server = &server;
                scope.spawn(move || {
                    let mut pushes = 0;
                    while Instant::now() < deadline {
                        let image = Image::small(940 + (client + pushes as u64) % 3);
                        let repository = format!("race/{}", client % 2);
                        let tag = format!("t{client}");
                        image.push(server, &repository, &tag);
                        image.assert_on(server, &repository, &tag);
                        let target = format!("/v2/{repository}/manifests/{tag}");
                        server.request("DELETE", &target).send().expect(202);
                        pushes += 1;
                        // Sometimes long enough for everything to go.
                        if pushes % 10 == 0 {
                            thread::sleep(Duration::from_millis(700));
                        }
                    }
                    pushes
                })
            })
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().expect("a client"))
            .sum()
    });
    assert!(pushes > 40, "only {pushes} pushes");
    eventually("nothing is left", || objects(&server) == 0);
}
