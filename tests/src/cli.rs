//! The commands beside serve and build, and how they fail.

use std::fs;
use std::fs::File;

use crate::harness::build::import;
use crate::harness::engine;
use crate::harness::image::Image;
use crate::harness::paths;
use crate::harness::server::Server;
use crate::harness::tool::Tool;

#[test]
fn archives_travel_between_engine_and_registry() {
    let server = Server::start();
    let engine = engine::debian();
    engine.import("busybox", "travel/app:v1");
    let id = engine
        .docker(["inspect", "--format={{.Id}}", "travel/app:v1"])
        .ok();
    let archive = server.scratch().join("from-docker.tar");
    engine
        .docker(["save", "-o"])
        .arg(&archive)
        .arg("travel/app:v1")
        .ok();
    engine.docker(["rmi", "--force", "travel/app:v1"]).ok();

    server.layeryard(["load", "-i"]).arg(&archive).ok();
    let image = format!("{}/travel/app:v1", server.host());
    engine.docker(["pull", &image]).ok();
    assert_eq!(engine.docker(["inspect", "--format={{.Id}}", &image]).ok(), id);
    engine.docker(["rmi", "--force", &image]).ok();

    let saved = server.scratch().join("from-layeryard.tar");
    server.layeryard(["save", "travel/app:v1", "-o"]).arg(&saved).ok();
    let loaded = engine.docker(["load", "-i"]).arg(&saved).ok();
    assert!(loaded.contains("travel/app:v1"), "{loaded}");
    assert_eq!(
        engine
            .docker(["inspect", "--format={{.Id}}", "travel/app:v1"])
            .ok(),
        id
    );
}

#[test]
fn layouts_keep_every_byte() {
    let server = Server::start();
    let index = Image::multi_platform(700);
    let layout = server.scratch().join("layout");
    index.write_layout(&layout, "v1");
    server
        .layeryard(["load", "--name", "layout/app:v1", "-i"])
        .arg(&layout)
        .ok();
    index.assert_on(&server, "layout/app", "v1");

    let saved = server.scratch().join("saved.tar");
    server
        .layeryard(["save", "--format", "oci", "layout/app:v1", "-o"])
        .arg(&saved)
        .ok();
    let out = server.scratch().join("out");
    Tool::debian("skopeo")
        .args(["--insecure-policy", "copy", "--all"])
        .arg(format!("oci-archive:{}", saved.display()))
        .arg(format!("oci:{}:v1", out.display()))
        .ok();
    let digest = index.digest();
    assert!(
        out.join("blobs/sha256").join(&digest["sha256:".len()..]).exists(),
        "the index changed on the way"
    );
}

#[test]
fn import_is_deterministic_and_reads_standard_input() {
    let server = Server::start();
    import(&server, "busybox", "one:v1");
    let archive = File::open(paths::rootfs("busybox")).expect("open the archive");
    server
        .layeryard(["import", "--change", "CMD [\"/bin/sh\"]", "-", "two:v1"])
        .stdin(archive)
        .ok();
    let digest = |name: &str| {
        let head = server
            .request("HEAD", &format!("/v2/{name}/manifests/v1"))
            .send()
            .expect(200);
        head.header("docker-content-digest").expect("a digest").to_owned()
    };
    assert_eq!(digest("one"), digest("two"));
    let image = format!("{}/two:v1", server.host());
    let said = engine::newest()
        .docker(["run", "--rm", "--network=none", &image, "echo", "imported"])
        .ok();
    assert_eq!(said, "imported");
}

#[test]
fn images_and_inspect_show_what_is_there() {
    let server = Server::start();
    let image = Image::small(710);
    image.push(&server, "team/app", "v1");
    image.push(&server, "team/app", "v2");
    let table = server.layeryard(["images"]).ok();
    assert!(
        table.contains("team/app") && table.contains("v1") && table.contains("v2"),
        "{table}"
    );
    let lines = server.layeryard(["images", "team/app", "--format", "json"]).ok();
    assert_eq!(lines.lines().count(), 2, "{lines}");
    for line in lines.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON lines");
        assert!(line.to_string().contains(&image.digest()), "{line}");
    }
    let shown = server.layeryard(["inspect", "team/app:v1"]).ok();
    assert!(
        shown.contains(&image.digest()) && shown.contains("linux"),
        "{shown}"
    );
    let raw = server.layeryard(["inspect", "--raw", "team/app:v1"]).run();
    assert_eq!(
        raw.stdout.trim(),
        String::from_utf8(image.manifest).expect("JSON").trim()
    );
}

#[test]
fn exit_codes_and_messages_are_stable() {
    let server = Server::start();
    let version = Tool::layeryard().arg("version").ok();
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    let help = Tool::layeryard().arg("--help").ok();
    for command in [
        "serve", "build", "copy", "import", "load", "save", "images", "inspect", "version",
    ] {
        assert!(help.contains(command), "{command} isn't in the help:\n{help}");
    }
    for hidden in ["zygote", "worker"] {
        assert!(
            !help.lines().any(|line| line.trim_start().starts_with(hidden)),
            "{help}"
        );
    }
    assert_eq!(Tool::layeryard().arg("no-such-command").fails().code, Some(2));
    assert_eq!(
        Tool::layeryard()
            .args(["build", "--no-such-flag", "."])
            .fails()
            .code,
        Some(2)
    );
    assert_eq!(
        Tool::layeryard().args(["inspect", "UPPER/case"]).fails().code,
        Some(2)
    );

    let missing = server.layeryard(["inspect", "not/there:v1"]).fails();
    assert!(
        missing.code == Some(1) && missing.stderr.contains("not/there"),
        "{missing}"
    );
    let gone = Tool::layeryard()
        .args(["images", "--server", "http://127.0.0.1:1"])
        .fails();
    assert!(
        gone.code == Some(1) && gone.stderr.contains("127.0.0.1:1"),
        "{gone}"
    );
    let absent = server.layeryard(["build", "-t", "x", "/no/such/context"]).fails();
    assert!(absent.stderr.contains("/no/such/context"), "{absent}");
}

#[test]
fn completions_are_made_for_three_shells() {
    let scripts = ["bash", "zsh", "fish"].map(|shell| Tool::layeryard().args(["completions", shell]).ok());
    for script in &scripts {
        assert!(
            script.contains("layeryard") && script.contains("build"),
            "{script}"
        );
    }
    let dir = paths::scratch();
    let path = dir.path().join("completion.bash");
    fs::write(&path, &scripts[0]).expect("write a script");
    Tool::debian("bash").arg("-n").arg(path).ok();
}

#[test]
fn second_server_on_a_data_directory_is_refused() {
    let mut server = Server::start();
    let second = Tool::layeryard()
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(server.data_dir());
    let refused = second.fails();
    assert!(
        refused
            .stderr
            .contains(server.data_dir().to_str().expect("a path in UTF-8")),
        "{refused}"
    );
    server.assert_healthy();
    assert!(
        server.data_dir().join("run/addresses").exists(),
        "the refused server took the addresses away"
    );
}

#[test]
fn open_listener_needs_a_decision() {
    let dir = paths::scratch();
    let serve = || {
        Tool::layeryard()
            .args(["serve", "--listen", "0.0.0.0:0", "--data-dir"])
            .arg(dir.path().join("data"))
    };
    let refused = serve().fails();
    assert!(
        refused.code == Some(2) && refused.stderr.contains("anonymous"),
        "{refused}"
    );
    let config = dir.path().join("config.toml");
    fs::write(&config, "[access]\nanonymous = \"sometimes\"\n").expect("write a configuration");
    assert_eq!(serve().arg("--config").arg(&config).fails().code, Some(2));
    fs::write(&config, "no_such_key = 1\n").expect("write a configuration");
    let unknown = serve().arg("--config").arg(&config).fails();
    assert!(
        unknown.code == Some(2) && unknown.stderr.contains("no_such_key"),
        "{unknown}"
    );
}

#[test]
fn stopped_server_leaves_no_address_and_keeps_everything() {
    let mut server = Server::start();
    let image = Image::small(720);
    image.push(&server, "app", "v1");
    server.stop();
    assert!(
        !server.data_dir().join("run/addresses").exists(),
        "addresses of a stopped server"
    );
    server.restart();
    image.assert_on(&server, "app", "v1");
}
