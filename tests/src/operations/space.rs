//! A disk that fills up: uploads are refused before it is full, and what makes room goes on.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::image::{Image, noise, sha256, with_digest};
use crate::harness::server::Server;
use crate::harness::tool::Tool;

const DISK_BYTES: u64 = 96 << 20;
const RESERVE_BYTES: u64 = 48 << 20;
const WAIT_SECONDS_MAX: u64 = 60;

const CONFIG: &str = "\
[storage]
reserve = \"48MiB\"
[limits]
undelete_window = \"0s\"
review_delay = \"2s\"
delete_delay = \"0s\"
collect_interval = \"200ms\"
";

/// A small file system. To be dropped after the server on it.
struct Disk {
    at: PathBuf,
}

impl Drop for Disk {
    fn drop(&mut self) {
        Tool::debian("umount").arg("-l").arg(&self.at).run();
        let _ = fs::remove_dir(&self.at);
    }
}

fn start() -> (Server, Disk) {
    let mut at = PathBuf::new();
    let server = Server::start_on(|data| {
        let size = format!("size={DISK_BYTES}");
        Tool::debian("mount")
            .args(["-t", "tmpfs", "-o", &size, "none"])
            .arg(data)
            .ok();
        let config = data.with_file_name("layeryard.toml");
        fs::write(config, CONFIG).expect("write the configuration");
        at = data.to_owned();
    });
    (server, Disk { at })
}

fn free_bytes(server: &Server) -> u64 {
    let metrics = server.metrics();
    let name = "layeryard_store_free_bytes{store=\"filesystem\"} ";
    let value = metrics.lines().find_map(|line| line.strip_prefix(name));
    let value = value.and_then(|text| text.parse().ok());
    value.unwrap_or_else(|| panic!("no free space in {metrics}"))
}

fn upload(server: &Server, bytes: &[u8]) -> u16 {
    let target = format!("/v2/app/blobs/uploads/?digest={}", sha256(bytes));
    server.request("POST", &target).body(bytes).send().status
}

#[track_caller]
fn put_manifest(server: &Server, image: &Image, tag: &str) {
    let put = server.request("PUT", &format!("/v2/app/manifests/{tag}"));
    let put = put.header("Content-Type", image.media_type);
    put.body(image.manifest.clone()).send().expect(201);
}

#[test]
fn uploads_end_before_the_disk_does_and_deletions_make_room() {
    let (mut server, _disk) = start();
    let image = Image::for_platform(9800, "amd64", 8 << 20);
    image.push(&server, "app", "large");
    // Its bytes come when the room is gone.
    let early = server
        .request("POST", "/v2/app/blobs/uploads/")
        .send()
        .expect(202)
        .location();
    // Blobs of a manifest stay; others would be collected sooner than they fill anything.
    let mut tags = Vec::new();
    for seed in 9810..9822 {
        let image = Image::for_platform(seed, "amd64", 8 << 20);
        if upload(&server, &image.blobs[1]) == 507 {
            break;
        }
        assert_eq!(upload(&server, &image.blobs[0]), 201);
        let tag = format!("v{seed}");
        put_manifest(&server, &image, &tag);
        tags.push(tag);
    }
    assert!((2..12).contains(&tags.len()), "{tags:?}");
    // What the database has written since is not much.
    let free = free_bytes(&server);
    assert!(free >= RESERVE_BYTES - (8 << 20), "{free} bytes are free");

    let large = noise(9830, 16 << 20);
    let put = server.request("PUT", &with_digest(&early, &sha256(&large)));
    let answer = put.body(large).send().expect_error(507, "STORAGE_FULL");
    assert!(answer.text().contains("nearly full"), "{}", answer.text());

    // Everything else goes on: reading, small things for the database, deleting.
    image.assert_on(&server, "app", "large");
    put_manifest(&server, &image, "again");
    for tag in &tags {
        let head = server.request("HEAD", &format!("/v2/app/manifests/{tag}"));
        let head = head.send().expect(200);
        let digest = head.header("docker-content-digest").expect("a digest");
        let target = format!("/v2/app/manifests/{digest}");
        server.request("DELETE", &target).send().expect(202);
    }
    let deadline = Instant::now() + Duration::from_secs(WAIT_SECONDS_MAX);
    while free_bytes(&server) < RESERVE_BYTES + (16 << 20) {
        assert!(
            Instant::now() < deadline,
            "{} bytes are free",
            free_bytes(&server)
        );
        thread::sleep(Duration::from_millis(100));
    }
    let again = Image::for_platform(9840, "amd64", 8 << 20);
    again.push(&server, "app", "fits");
    again.assert_on(&server, "app", "fits");
    server.assert_healthy();
}
