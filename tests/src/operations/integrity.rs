//! Broken blobs are found, taken out of service and healed by a push; a lost or old database comes back.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::image::{Image, push_blob, sha256};
use crate::harness::server::Server;
use crate::harness::tool::Tool;

/// The file of a blob.
pub(super) fn object(server: &Server, digest: &str) -> PathBuf {
    let hex = digest.strip_prefix("sha256:").expect("a sha256");
    let shard = server.data_dir().join("blobs/sha256").join(&hex[..2]);
    let entries = fs::read_dir(shard).expect("read the shard");
    entries
        .map(|entry| entry.expect("an entry").path())
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(hex))
        })
        .expect("the object is there")
}

#[test]
fn a_corrupt_blob_is_quarantined_and_healed_by_a_push() {
    let server = Server::start_configured("[verify]\nmissing_again_after = '0s'\n");
    let (broken, gone, fine) = (Image::small(9200), Image::small(9210), Image::small(9220));
    for (image, tag) in [(&broken, "broken"), (&gone, "gone"), (&fine, "fine")] {
        image.push(&server, "app", tag);
    }
    server.layeryard(["verify"]).ok();
    let corrupt = sha256(&broken.blobs[1]);
    let path = object(&server, &corrupt);
    let mut bytes = fs::read(&path).expect("read the object");
    bytes[100] ^= 1;
    fs::write(&path, bytes).expect("break the object");
    let missing = sha256(&gone.blobs[1]);
    fs::remove_file(object(&server, &missing)).expect("lose the object");

    let ran = server.layeryard(["verify"]).run();
    assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
    assert!(
        ran.stdout.contains(&format!("corrupt  {corrupt}")),
        "{}",
        ran.stdout
    );
    let ran = await_end(&server);
    assert!(ran.contains(&format!("missing  {missing}")), "{ran}");
    for digest in [&corrupt, &missing] {
        server
            .request("GET", &format!("/v2/app/blobs/{digest}"))
            .send()
            .expect_error(404, "BLOB_UNKNOWN");
    }
    fine.assert_on(&server, "app", "fine");
    push_blob(&server, "app", &broken.blobs[1]);
    push_blob(&server, "app", &gone.blobs[1]);
    server.layeryard(["verify"]).ok();
    broken.assert_on(&server, "app", "broken");
    gone.assert_on(&server, "app", "gone");
}

fn await_end(server: &Server) -> String {
    for _ in 0..100 {
        let ran = server.layeryard(["verify", "--status"]).run();
        if ran.stdout.starts_with("finished") {
            return ran.stdout;
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    panic!("the verification does not end");
}

#[test]
fn a_lost_or_old_database_comes_back_from_the_store() {
    let mut server = Server::start();
    let (first, second) = (Image::small(9230), Image::multi_platform(9240));
    first.push(&server, "team/app", "v1");
    second.push(&server, "team/app", "moved");
    server.stop();
    let database = server.data_dir().join("registry.db");
    let log = server.data_dir().join("registry.db-wal");
    let (backup, backup_log) = (
        server.scratch().join("backup.db"),
        server.scratch().join("backup.db-wal"),
    );
    fs::copy(&database, &backup).expect("keep an old database");
    // The log may outlive the server, and belongs to its database.
    copy_if_there(&log, &backup_log);
    server.restart();
    first.push(&server, "team/app", "moved");
    second.push(&server, "team/app", "v2");
    server
        .request("DELETE", "/v2/team/app/manifests/v1")
        .send()
        .expect(202);
    server.stop();

    // The old one: nothing may be changed, nothing is deleted.
    let newest = server.scratch().join("newest.db");
    fs::rename(&database, &newest).expect("take the database away");
    fs::copy(&backup, &database).expect("bring the old database back");
    let _ = fs::remove_file(&log);
    copy_if_there(&backup_log, &log);
    server.restart();
    let refused = server.request("POST", "/v2/team/app/blobs/uploads/").send();
    assert!(
        refused
            .expect_error(503, "UNAVAILABLE")
            .text()
            .contains("rebuild-metadata")
    );
    server
        .request("GET", "/v2/team/app/manifests/v2")
        .send()
        .expect(404);
    server.stop();
    let rebuild = Tool::layeryard().args(["rebuild-metadata", "--data-dir"]);
    rebuild.arg(server.data_dir()).ok();
    server.restart();
    assert_restored(&server, &first, &second);
    server.stop();

    // None at all.
    fs::remove_file(&database).expect("lose the database");
    let _ = fs::remove_file(&log);
    let rebuild = Tool::layeryard().args(["rebuild-metadata", "--anew", "--data-dir"]);
    let ran = rebuild.arg(server.data_dir()).run();
    assert!(
        ran.code == Some(0) && ran.stderr.contains("access.anonymous"),
        "{ran}"
    );
    server.restart();
    assert_restored(&server, &first, &second);
    Image::small(9250).push(&server, "team/app", "v3");
}

fn copy_if_there(from: &Path, to: &Path) {
    if from.exists() {
        fs::copy(from, to).expect("copy a log");
    }
}

fn assert_restored(server: &Server, first: &Image, second: &Image) {
    first.assert_on(server, "team/app", "moved");
    second.assert_on(server, "team/app", "v2");
    server
        .request("GET", "/v2/team/app/manifests/v1")
        .send()
        .expect(404);
}

#[test]
fn a_copy_of_a_running_server_has_all_that_was_acknowledged_before() {
    let server = Server::start();
    let images: Vec<Image> = (0..8).map(|index| Image::small(9260 + index)).collect();
    for (index, image) in images.iter().enumerate() {
        image.push(&server, "team/app", &format!("v{index}"));
    }
    let copy = server.scratch().join("copy");
    std::thread::scope(|scope| {
        let pushing = scope
            .spawn(|| (0..30).for_each(|index| Image::small(9270 + index).push(&server, "busy", "latest")));
        Tool::layeryard()
            .args(["backup", "--data-dir"])
            .arg(server.data_dir())
            .arg(&copy)
            .ok();
        pushing.join().expect("pushes go on");
    });
    let restored = Server::start_on(|data| {
        let tool = Tool::layeryard()
            .arg("restore")
            .arg(&copy)
            .arg("--data-dir")
            .arg(data);
        tool.ok();
    });
    for (index, image) in images.iter().enumerate() {
        image.assert_on(&restored, "team/app", &format!("v{index}"));
    }
    restored.layeryard(["verify"]).ok();
    let full = Tool::layeryard().args(["backup", "--data-dir"]);
    full.arg(server.data_dir()).arg(&copy).fails();
}
