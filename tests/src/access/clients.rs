//! The clients that people use log in, push where they may and are refused elsewhere: plain HTTP on loopback.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::harness::engine::{self, Engine};
use crate::harness::image::Image;
use crate::harness::tool::Tool;

fn layout(server: &Server) -> String {
    let dir = server.scratch().join("layout");
    Image::small(710).write_layout(&dir, "v1");
    dir.display().to_string()
}

fn directory(server: &Server, name: &str) -> PathBuf {
    let dir = server.scratch().join(name);
    fs::create_dir(&dir).expect("make a directory");
    dir
}

/// The file that `kubectl create secret docker-registry` makes.
fn pull_secret(dir: &Path, host: &str, user: &str, password: &str) -> PathBuf {
    let auth = STANDARD.encode(format!("{user}:{password}"));
    let path = dir.join("config.json");
    let text = json!({"auths": {host: {"username": user, "password": password, "auth": auth}}});
    fs::write(&path, text.to_string()).expect("write a pull secret");
    path
}

#[test]
fn debian_engine_logs_in() {
    engine_logs_in(engine::debian());
}

#[test]
fn newest_engine_logs_in() {
    engine_logs_in(engine::newest());
}

fn engine_logs_in(engine: &Engine) {
    let server = guarded();
    let config = directory(&server, "docker");
    let docker = |args: &[&str]| engine.docker(args).env("DOCKER_CONFIG", &config);
    let login = |password: &str| docker(&["login", "-u", "bert", "-p", password, &server.host()]);
    let wrong = login("wrong").fails();
    assert!(wrong.stderr.to_lowercase().contains("unauthorized"), "{wrong}");
    login("secret").ok();
    let stored = fs::read_to_string(config.join("config.json")).expect("what login stores");
    assert!(stored.contains("identitytoken"), "no password is kept: {stored}");
    let name = |name: &str| format!("{}/{name}:v1", server.host());
    for repository in ["team/app", "other/app"] {
        engine.import("busybox", &name(repository));
    }
    docker(&["push", &name("team/app")]).ok();
    let refused = docker(&["push", &name("other/app")]).fails();
    // The old engine shows the code, the new one the message.
    let said = refused.stderr.to_lowercase();
    assert!(
        said.contains("denied") || said.contains("bert may not"),
        "{refused}"
    );
    docker(&["rmi", "--force", &name("team/app")]).ok();
    docker(&["pull", &name("team/app")]).ok();
    docker(&["logout", &server.host()]).ok();
    docker(&["rmi", "--force", &name("team/app"), &name("other/app")]).ok();
    docker(&["pull", &name("team/app")]).fails();
}

#[test]
fn podman() {
    let server = guarded();
    let storage = server.scratch().join("podman");
    let auth = server.scratch().join("auth.json");
    let podman = || {
        let podman = Tool::debian("podman").arg("--root").arg(storage.join("root"));
        podman
            .arg("--runroot")
            .arg(storage.join("run"))
            .args(["--storage-driver=vfs", "--cgroup-manager=cgroupfs"])
            .env("REGISTRY_AUTH_FILE", &auth)
    };
    let login = |password: &str| {
        podman().args([
            "login",
            "--tls-verify=false",
            "-u",
            "bert",
            "-p",
            password,
            &server.host(),
        ])
    };
    login("wrong").fails();
    login("secret").ok();
    let name = |name: &str| format!("{}/{name}:v1", server.host());
    let rootfs = crate::harness::paths::rootfs("busybox");
    podman()
        .args(["import", "-q"])
        .arg(rootfs)
        .arg(name("team/app"))
        .ok();
    podman().args(["tag", &name("team/app"), &name("other/app")]).ok();
    podman()
        .args(["push", "-q", "--tls-verify=false", &name("team/app")])
        .ok();
    podman()
        .args(["push", "-q", "--tls-verify=false", &name("other/app")])
        .fails();
    podman()
        .args(["rmi", "--force", &name("team/app"), &name("other/app")])
        .ok();
    podman()
        .args(["pull", "-q", "--tls-verify=false", &name("team/app")])
        .ok();
}

#[test]
fn crane_with_a_robot() {
    let server = guarded();
    let robot = Tool::layeryard()
        .args([
            "token",
            "create",
            "ci",
            "--allow",
            "team/*=pull,push",
            "--data-dir",
        ])
        .arg(server.data_dir())
        .ok();
    let config = directory(&server, "docker");
    let crane = || Tool::peer("crane", "clients").env("DOCKER_CONFIG", &config);
    crane()
        .args(["auth", "login", &server.host(), "-u", "ci", "-p", &robot])
        .ok();
    let push = |name: &str| {
        let name = format!("{}/{name}:v1", server.host());
        crane().args(["push", "--index", &layout(&server), &name])
    };
    push("team/app").ok();
    push("team/deep/app").fails();
    crane()
        .args(["manifest", &format!("{}/team/app:v1", server.host())])
        .ok();
    // Nobody in particular may pull what is public, without logging in.
    push_as_anna(&server, "public/app");
    let nobody = Tool::peer("crane", "clients").env("DOCKER_CONFIG", server.scratch());
    nobody
        .args(["manifest", &format!("{}/public/app:v1", server.host())])
        .ok();
    let nobody = Tool::peer("crane", "clients").env("DOCKER_CONFIG", server.scratch());
    nobody
        .args(["manifest", &format!("{}/team/app:v1", server.host())])
        .fails();
}

fn push_as_anna(server: &Server, repository: &str) {
    push(server, repository, "v1", repository);
}

#[test]
fn skopeo_with_a_pull_secret() {
    let server = guarded();
    let name = |name: &str| format!("docker://{}/{name}:v1", server.host());
    let secret = pull_secret(&directory(&server, "secret"), &server.host(), "bert", "secret");
    let wrong = pull_secret(&directory(&server, "wrong"), &server.host(), "bert", "wrong");
    let from = format!("oci:{}:v1", layout(&server));
    let copy = |file: &Path, to: &str| {
        let skopeo = Tool::debian("skopeo").args(["--insecure-policy", "copy", "--dest-tls-verify=false"]);
        skopeo
            .arg(format!("--dest-authfile={}", file.display()))
            .arg(&from)
            .arg(name(to))
    };
    copy(&secret, "team/app").ok();
    copy(&secret, "other/app").fails();
    copy(&wrong, "team/app").fails();
    let inspect = |file: &Path| {
        let skopeo = Tool::debian("skopeo").args(["inspect", "--raw", "--tls-verify=false"]);
        skopeo
            .arg(format!("--authfile={}", file.display()))
            .arg(name("team/app"))
    };
    inspect(&secret).ok();
    inspect(&wrong).fails();
    // Kubelet and its kind read the same file; crane does it as they do.
    let crane = Tool::peer("crane", "clients").env("DOCKER_CONFIG", secret.parent().expect("a directory"));
    crane
        .args(["manifest", &format!("{}/team/app:v1", server.host())])
        .ok();
}

#[test]
fn oras_and_regctl() {
    let server = guarded();
    let file = server.scratch().join("note.txt");
    fs::write(&file, "a note").expect("write a file");
    let config = directory(&server, "oras").join("config.json");
    let oras = || Tool::peer("oras", "clients").current_dir(server.scratch());
    let flags = || {
        [
            "--plain-http".to_owned(),
            format!("--registry-config={}", config.display()),
        ]
    };
    oras()
        .args(["login", "-u", "bert", "-p", "secret"])
        .args(flags())
        .arg(server.host())
        .ok();
    let push = |name: &str| {
        let name = format!("{}/{name}:v1", server.host());
        oras().arg("push").args(flags()).arg(name).arg("note.txt")
    };
    push("team/note").ok();
    push("other/note").fails();

    let regctl = || {
        let config = server.scratch().join("regctl.json");
        Tool::peer("regctl", "clients").env("REGCTL_CONFIG", config)
    };
    regctl()
        .args(["registry", "set", "--tls", "disabled", &server.host()])
        .ok();
    regctl()
        .args(["registry", "login", "-u", "bert", "-p", "secret", &server.host()])
        .ok();
    let tags = regctl()
        .args(["tag", "ls", &format!("{}/team/note", server.host())])
        .ok();
    assert_eq!(tags, "v1");
    regctl()
        .args(["tag", "ls", &format!("{}/other/note", server.host())])
        .fails();
    let repositories = regctl().args(["repo", "ls", &server.host()]).ok();
    assert_eq!(repositories, "team/note");
}

/// Layeryard's own commands take what `docker login` stored.
#[test]
fn layeryard() {
    let server = guarded();
    let config = directory(&server, "docker");
    pull_secret(&config, &server.host(), "bert", "secret");
    let archive = server.scratch().join("rootfs.tar");
    fs::copy(crate::harness::paths::rootfs("busybox"), &archive).expect("copy a root file system");
    let run = |args: &[&str]| {
        server
            .layeryard(args.iter().copied())
            .env("DOCKER_CONFIG", &config)
    };
    let import = |name: &str| run(&["import", archive.to_str().expect("a path"), name]);
    import("team/busybox").ok();
    import("other/busybox").fails();
    let context = directory(&server, "context");
    fs::write(
        context.join("Dockerfile"),
        "FROM team/busybox\nCOPY Dockerfile /\n",
    )
    .expect("write a Dockerfile");
    let context = context.to_str().expect("a path");
    run(&["build", "-t", "team/built", context]).ok();
    run(&["build", "-t", "other/built", context]).fails();
    let images = run(&["images"]).ok();
    assert!(
        images.contains("team/built") && images.contains("team/busybox"),
        "{images}"
    );
    // What its user may not pull a build may not use.
    push_as_anna(&server, "private/base");
    let other = directory(&server, "other-context");
    fs::write(other.join("Dockerfile"), "FROM private/base:v1\n").expect("write a Dockerfile");
    let ran = run(&["build", "-t", "team/stolen", other.to_str().expect("a path")]).fails();
    assert!(ran.stderr.contains("private/base"), "{ran}");
    let nobody = server
        .layeryard(["build", "-t", "team/built", context])
        .env("DOCKER_CONFIG", server.scratch());
    nobody.fails();
}
