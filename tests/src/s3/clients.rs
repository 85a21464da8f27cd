//! Real clients over a bucket, with and without redirects to it.

use crate::harness::engine;
use crate::harness::image::{Image, noise, sha256};
use crate::harness::s3::Gateway;
use crate::harness::server::Server;
use crate::harness::tool::Tool;

/// Larger than a part.
const LAYER_BYTES: usize = 36_000_000;

fn image_on_disk(server: &Server, seed: u64) -> (Image, String) {
    let image = Image::for_platform(seed, "amd64", LAYER_BYTES);
    let dir = server.scratch().join("layout");
    image.write_layout(&dir, "v1");
    let path = dir.to_str().expect("UTF-8").to_owned();
    (image, path)
}

#[test]
fn skopeo_and_crane_get_what_they_sent() {
    let gateway = Gateway::start();
    let mut server = gateway.serve(&[]);
    let (image, layout) = image_on_disk(&server, 700);
    let skopeo = || Tool::debian("skopeo").args(["--insecure-policy", "copy", "--src-tls-verify=false"]);
    let name = format!("docker://{}/skopeo/app:v1", server.host());
    skopeo()
        .args(["--dest-tls-verify=false", &format!("oci:{layout}:v1"), &name])
        .ok();
    image.assert_on(&server, "skopeo/app", "v1");
    let out = server.scratch().join("out");
    skopeo().args([&name, &format!("oci:{}:v1", out.display())]).ok();

    let crane = || Tool::peer("crane", "clients").env("DOCKER_CONFIG", server.scratch());
    let copy = format!("{}/crane/copy:v1", server.host());
    crane()
        .args(["copy", &format!("{}/skopeo/app:v1", server.host()), &copy])
        .ok();
    image.assert_on(&server, "crane/copy", "v1");
    server.assert_healthy();
}

#[test]
fn docker_pushes_and_pulls() {
    let gateway = Gateway::start();
    let mut server = gateway.serve(&[]);
    push_and_pull_with_docker(&server);
    server.assert_healthy();
}

#[test]
fn clients_follow_to_the_bucket() {
    let gateway = Gateway::start();
    let mut server = gateway.serve(&["LAYERYARD_STORAGE__S3__REDIRECT=true"]);
    let (image, layout) = image_on_disk(&server, 710);
    let crane = || Tool::peer("crane", "clients").env("DOCKER_CONFIG", server.scratch());
    let name = format!("{}/crane/app", server.host());
    crane().args(["push", &layout, &format!("{name}:v1")]).ok();
    let layer = &image.blobs[1];
    let digest = sha256(layer);
    let sent_away = server
        .request("GET", &format!("/v2/crane/app/blobs/{digest}"))
        .send()
        .expect(307);
    let location = sent_away.header("location").expect("an address");
    assert!(
        location.starts_with(&format!("http://{}/", gateway.address())),
        "{location}"
    );
    let out = server.scratch().join("layer");
    let fetched = Tool::new("sh")
        .args(["-c", "\"$0\" blob \"$1\" > \"$2\""])
        .arg(crate::harness::paths::peer("crane", "clients"))
        .args([&format!("{name}@{digest}"), out.to_str().expect("UTF-8")]);
    fetched.env("DOCKER_CONFIG", server.scratch()).ok();
    assert!(std::fs::read(&out).expect("the layer") == *layer);
    push_and_pull_with_docker(&server);
    server.assert_healthy();
}

fn push_and_pull_with_docker(server: &Server) {
    let engine = engine::debian();
    let name = format!("{}/docker/app:v1", server.host());
    // A layer of several parts.
    let root = server.scratch().join("root");
    std::fs::create_dir(&root).expect("make a root");
    std::fs::write(root.join("noise"), noise(720, LAYER_BYTES)).expect("write a file");
    let tar = server.scratch().join("root.tar");
    Tool::debian("tar")
        .arg("-cf")
        .arg(&tar)
        .arg("-C")
        .arg(&root)
        .arg(".")
        .ok();
    engine.docker(["import"]).arg(&tar).arg(&name).ok();
    let id = engine.docker(["inspect", "--format={{.Id}}", &name]).ok();
    engine.docker(["push", &name]).ok();
    engine.docker(["rmi", &name]).ok();
    engine.docker(["pull", &name]).ok();
    assert_eq!(engine.docker(["inspect", "--format={{.Id}}", &name]).ok(), id);
    engine.docker(["rmi", &name]).ok();
}
