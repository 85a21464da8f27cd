//! Images of other registries: `layeryard copy` by hand, `FROM` in a build. The other registry is distribution v3 on
//! this machine, open, with Basic or with token authentication.

use std::fs;
use std::path::PathBuf;

use crate::harness::build::{Context, import};
use crate::harness::http::Request;
use crate::harness::image::Image;
use crate::harness::proxy::Proxy;
use crate::harness::server::Server;
use crate::harness::tool::Tool;
use crate::harness::upstream::{Access, Upstream};

/// Puts an image into the other registry, as its user.
fn publish(upstream: &Upstream, scratch: &Server, image: &Image, name: &str) {
    let dir = scratch
        .scratch()
        .join(format!("layout-{}", &image.digest()[7..19]));
    image.write_layout(&dir, "v1");
    upstream.skopeo_copy(&format!("oci:{}:v1", dir.display()), name);
}

/// `DOCKER_CONFIG` directories: with the user's credentials, with a wrong password, with nothing.
struct Configs {
    right: PathBuf,
    wrong: PathBuf,
    none: PathBuf,
}

fn configs(upstream: &Upstream, server: &Server) -> Configs {
    let [right, wrong, none] = ["right", "wrong", "none"].map(|name| server.scratch().join(name));
    upstream.write_docker_config(&right);
    upstream.write_docker_config_of(&wrong, "not the password");
    fs::create_dir(&none).expect("make a directory");
    Configs { right, wrong, none }
}

fn copies_in_and_out(access: Access) {
    let server = Server::start();
    let upstream = Upstream::start(access);
    let configs = configs(&upstream, &server);
    let index = Image::multi_platform(500);
    publish(&upstream, &server, &index, "private/app:v1");

    let source = format!("{}/private/app:v1", upstream.host());
    let copy = |from: &str, to: &str, config: &PathBuf| {
        server.layeryard(["copy", from, to]).env("DOCKER_CONFIG", config)
    };
    copy(&source, "copied/app:v1", &configs.right).ok();
    index.assert_on(&server, "copied/app", "v1");

    // Out again under another name, and in once more: distribution kept the bytes.
    let back = format!("{}/private/back:v2", upstream.host());
    copy("copied/app:v1", &back, &configs.right).ok();
    copy(&back, "again/app:v2", &configs.right).ok();
    index.assert_on(&server, "again/app", "v2");

    if access != Access::Open {
        for config in [&configs.none, &configs.wrong] {
            let refused = copy(&source, "stolen/app:v1", config).fails();
            let said = refused.stderr.to_lowercase();
            assert!(
                said.contains("auth") || said.contains("denied") || said.contains("credential"),
                "{refused}"
            );
            assert!(
                said.contains(&upstream.host()),
                "the registry isn't named: {refused}"
            );
            assert!(!said.contains("secret"), "a password is shown: {refused}");
        }
        server
            .request("GET", "/v2/stolen/app/tags/list")
            .send()
            .expect(404);
    }
}

#[test]
fn copy_with_an_open_registry() {
    copies_in_and_out(Access::Open);
}

#[test]
fn copy_with_basic_authentication() {
    copies_in_and_out(Access::Basic);
}

#[test]
fn copy_with_token_authentication() {
    copies_in_and_out(Access::Token);
}

#[test]
fn copy_of_what_is_not_there_says_so() {
    let server = Server::start();
    let upstream = Upstream::start(Access::Open);
    let missing = format!("{}/no/such:v1", upstream.host());
    let refused = server.layeryard(["copy", &missing, "x:v1"]).fails();
    assert!(
        refused.stderr.contains(&missing) || refused.stderr.contains("no/such"),
        "{refused}"
    );
    // Nobody listens there.
    let refused = server
        .layeryard(["copy", "127.0.0.1:1/no/such:v1", "x:v1"])
        .fails();
    assert!(refused.stderr.contains("127.0.0.1:1"), "{refused}");
}

#[test]
fn anonymous_token_reads_what_is_public() {
    let server = Server::start();
    let upstream = Upstream::start(Access::Token);
    let configs = configs(&upstream, &server);
    let image = Image::small(510);
    publish(&upstream, &server, &image, "public/app:v1");
    let source = format!("{}/public/app:v1", upstream.host());
    server
        .layeryard(["copy", &source, "copied:v1"])
        .env("DOCKER_CONFIG", &configs.none)
        .ok();
    image.assert_on(&server, "copied", "v1");
}

#[test]
fn credential_helper_is_asked() {
    let server = Server::start();
    let upstream = Upstream::start(Access::Basic);
    let image = Image::small(520);
    publish(&upstream, &server, &image, "private/app:v1");
    let dir = server.scratch().join("helper");
    fs::create_dir(&dir).expect("make a directory");
    let script = format!(
        "#!/bin/sh\nread -r host\n[ \"$1 $host\" = \"get {}\" ] || {{ echo \"credentials not found in native keychain\"; exit 1; }}\n\
         echo '{{\"ServerURL\":\"\",\"Username\":\"robot\",\"Secret\":\"secret\"}}'\n",
        upstream.host()
    );
    let helper = dir.join("docker-credential-test");
    fs::write(&helper, script).expect("write the helper");
    Tool::debian("chmod").arg("755").arg(&helper).ok();
    let config = serde_json::json!({"credHelpers": {upstream.host(): "test"}});
    fs::write(dir.join("config.json"), config.to_string()).expect("write config.json");

    let path = format!(
        "{}:{}",
        dir.display(),
        std::env::var("PATH").expect("PATH is set")
    );
    let source = format!("{}/private/app:v1", upstream.host());
    server
        .layeryard(["copy", &source, "copied:v1"])
        .env("DOCKER_CONFIG", &dir)
        .env("PATH", path)
        .ok();
    image.assert_on(&server, "copied", "v1");
}

/// A BusyBox image in the other registry, made by a server that is gone afterwards. Its digest.
fn publish_busybox(upstream: &Upstream, name: &str, dockerfile: &str) -> String {
    let staging = Server::start();
    import(&staging, "busybox", "busybox:latest");
    let digest = Context::new(dockerfile).build(&staging, "staging:v1").digest;
    upstream.skopeo_copy(&format!("docker://{}/staging:v1", staging.host()), name);
    digest
}

#[test]
fn build_fetches_its_base_once() {
    let mut server = Server::start();
    let upstream = Upstream::start(Access::Token);
    let configs = configs(&upstream, &server);
    publish_busybox(
        &upstream,
        "private/base:v1",
        "FROM busybox\nRUN echo 1 > /version\n",
    );
    let context = Context::new(&format!(
        "FROM {}/private/base:v1\nRUN echo built > /x\n",
        upstream.host()
    ));

    let refused = context
        .command(&server, "app:v0")
        .env("DOCKER_CONFIG", &configs.none)
        .fails();
    assert!(refused.stderr.contains("private/base"), "{refused}");

    context
        .command(&server, "app:v1")
        .env("DOCKER_CONFIG", &configs.right)
        .ok();
    let fetched = upstream.requests("GET /v2/private/base/blobs/");
    assert!(fetched >= 2, "config and layer: {fetched} requests");
    context
        .command(&server, "app:v2")
        .env("DOCKER_CONFIG", &configs.right)
        .arg("--no-cache")
        .ok();
    assert_eq!(
        upstream.requests("GET /v2/private/base/blobs/"),
        fetched,
        "blobs were fetched again"
    );

    // Kept here under its own name, for everybody who may read here.
    let kept = format!("{}/private/base", upstream.host().replace(':', "_"));
    server
        .request("GET", &format!("/v2/{kept}/manifests/v1"))
        .send()
        .expect(200);

    // The tag moves: the next build notices.
    publish_busybox(
        &upstream,
        "private/base:v1",
        "FROM busybox\nRUN echo 2 > /version\n",
    );
    let dockerfile = format!(
        "FROM {}/private/base:v1\nRUN test $(cat /version) = 2\n",
        upstream.host()
    );
    Context::new(&dockerfile)
        .command(&server, "app:v3")
        .env("DOCKER_CONFIG", &configs.right)
        .ok();
    server.assert_healthy();
}

#[test]
fn build_without_upstream_goes_on_with_a_digest_it_has() {
    let server = Server::start();
    let upstream = Upstream::start(Access::Open);
    let digest = publish_busybox(&upstream, "base:v1", "FROM busybox\nLABEL only=this\n");
    let context = Context::new(&format!(
        "FROM {}/base@{digest}\nRUN echo built > /x\n",
        upstream.host()
    ));
    context.build(&server, "app:v1");
    drop(upstream);
    context.build_with(&server, "app:v2", &["--no-cache"]);
}

#[test]
fn cut_download_is_resumed() {
    let mut server = Server::start();
    let upstream = Upstream::start(Access::Open);
    let image = Image::for_platform(530, "amd64", 3_000_000);
    publish(&upstream, &server, &image, "big:v1");
    let proxy = Proxy::cutting(upstream.address(), 1_000_000);
    let source = format!("{}/big:v1", proxy.address());
    server.layeryard(["copy", &source, "copied:v1"]).ok();
    image.assert_on(&server, "copied", "v1");
    assert!(proxy.cuts() >= 1, "nothing was cut");
    // Resuming costs the rest, not everything again.
    assert!(
        proxy.bytes() < 4_500_000,
        "{} bytes for an image of 3 MB",
        proxy.bytes()
    );
    server.assert_healthy();
}

#[test]
fn changed_bytes_are_noticed() {
    let mut server = Server::start();
    let upstream = Upstream::start(Access::Open);
    let image = Image::for_platform(540, "amd64", 500_000);
    publish(&upstream, &server, &image, "big:v1");
    let proxy = Proxy::corrupting(upstream.address(), 200_000);
    let refused = server
        .layeryard(["copy", &format!("{}/big:v1", proxy.address()), "copied:v1"])
        .fails();
    assert!(refused.stderr.contains("sha256:"), "{refused}");
    server
        .request("GET", "/v2/copied/manifests/v1")
        .send()
        .expect(404);
    for blob in &image.blobs {
        let digest = crate::harness::image::sha256(blob);
        let got = server
            .request("GET", &format!("/v2/copied/blobs/{digest}"))
            .send();
        assert!(got.status == 404 || got.body == *blob, "a corrupt blob was kept");
    }
    server.assert_healthy();
}

/// The tests above mean something only if the other registry does refuse strangers.
#[test]
fn upstream_is_what_it_says() {
    for (access, status) in [(Access::Open, 200), (Access::Basic, 401), (Access::Token, 401)] {
        let upstream = Upstream::start(access);
        Request::new("GET", upstream.address(), "/v2/")
            .send()
            .expect(status);
        let server = crate::harness::paths::scratch();
        let dir = server.path().join("layout");
        let image = Image::small(560);
        image.write_layout(&dir, "v1");
        upstream.skopeo_copy(&format!("oci:{}:v1", dir.display()), "public/app:v1");
        let read = Tool::debian("skopeo").args(["inspect", "--raw", "--tls-verify=false", "--no-creds"]);
        let read = read
            .arg(format!("docker://{}/public/app:v1", upstream.host()))
            .run();
        assert_eq!(read.code == Some(0), access != Access::Basic, "{read}");
    }
}
