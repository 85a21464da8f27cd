//! containerd, as a Kubernetes node pulls: credentials by hand, by a token service, out of a pull secret.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::harness::containerd::Namespace;
use crate::harness::image::Image;
use crate::harness::token_server::TokenServer;
use crate::harness::tool::Tool;
use crate::harness::upstream::{PASSWORD, USER};

/// Puts an image into containerd under several names.
fn imported(server: &Server, ctr: &Namespace, repositories: &[&str]) -> Image {
    let image = Image::multi_platform(750);
    let layout = server.scratch().join("layout");
    image.write_layout(&layout, "v1");
    for repository in repositories {
        ctr.import(&layout, &format!("{}/{repository}", server.host()));
    }
    image
}

fn pull(ctr: &Namespace) -> Tool {
    let pull = ctr.images("pull").args(["--plain-http", "--all-platforms"]);
    pull.args(["--snapshotter", "native"])
}

/// The registry answers 401 and names its own `/token`; there the name and the password are shown.
#[test]
fn a_user_logs_in() {
    let server = guarded();
    let ctr = Namespace::new("user");
    let image = imported(&server, &ctr, &["team/app", "other/app"]);
    let name = |repository: &str| format!("{}/{repository}:v1", server.host());
    for way in [None, Some("--local")] {
        let push = |user: &str| {
            ctr.images("push")
                .args(["--plain-http", "--user", user])
                .args(way)
        };
        push("bert:wrong").arg(name("team/app")).fails();
        push("bert:secret").arg(name("other/app")).fails();
        push("bert:secret").arg(name("team/app")).ok();
        ctr.remove(&name("team/app"));
        pull(&ctr).args(way).arg(name("team/app")).fails();
        pull(&ctr)
            .args(way)
            .args(["--user", "bert:wrong"])
            .arg(name("team/app"))
            .fails();
        pull(&ctr)
            .args(way)
            .args(["--user", "bert:secret"])
            .arg(name("team/app"))
            .ok();
    }
    let tags = send(&server, "GET", "/v2/team/app/tags/list", &basic("bert", "secret"));
    assert_eq!(tags.expect(200).json()["tags"], json!(["v1"]));
    send(
        &server,
        "GET",
        &format!("/v2/team/app/manifests/{}", image.digest()),
        &basic("bert", "secret"),
    )
    .expect(200);
}

#[test]
fn a_token_service_of_others_is_asked() {
    let dir = crate::harness::paths::scratch();
    let service = TokenServer::start(dir.path());
    let config = format!("[access]\nanonymous = 'none'\n{}", service.layeryard_config());
    let server = Server::start_with(&config);
    let ctr = Namespace::new("external");
    imported(&server, &ctr, &["team/app"]);
    let name = format!("{}/team/app:v1", server.host());
    let user = format!("{USER}:{PASSWORD}");
    let push = |user: &str| {
        ctr.images("push")
            .args(["--plain-http", "--user", user])
            .arg(&name)
    };
    push("robot:wrong").fails();
    push(&user).ok();
    ctr.remove(&name);
    pull(&ctr).arg(&name).fails();
    pull(&ctr).args(["--user", &user]).arg(&name).ok();
}

/// What kubelet does with `kubectl create secret docker-registry`: the secret's `auth` becomes the header of every request,
/// here by way of the node's hosts.toml.
#[test]
fn a_pull_secret_opens_what_its_robot_may_pull() {
    let server = guarded();
    let ctr = Namespace::new("secret");
    imported(&server, &ctr, &["team/app", "other/app"]);
    for repository in ["team/app", "other/app"] {
        let name = format!("{}/{repository}:v1", server.host());
        let push = ctr.images("push").args(["--plain-http", "--user", "anna:secret"]);
        push.arg(&name).ok();
        ctr.remove(&name);
    }
    let create = [
        "token",
        "create",
        "cluster",
        "--allow",
        "team/*=pull",
        "--data-dir",
    ];
    let robot = Tool::layeryard().args(create).arg(server.data_dir()).ok();
    let auth = STANDARD.encode(format!("cluster:{robot}"));
    let secret = json!({"auths": {server.host(): {"auth": auth}}});
    let hosts = hosts_of(&server, &secret);
    let fetch = |repository: &str| {
        let fetch = pull(&ctr).arg("--hosts-dir").arg(&hosts);
        fetch.arg(format!("{}/{repository}:v1", server.host()))
    };
    pull(&ctr).arg(format!("{}/team/app:v1", server.host())).fails();
    fetch("team/app").ok();
    let refused = fetch("other/app").fails();
    assert!(refused.stderr.contains("403"), "{refused}");
}

/// A node's configuration with what a pull secret (a `.dockerconfigjson`) says of this server.
fn hosts_of(server: &Server, secret: &Value) -> PathBuf {
    let auth = secret["auths"][server.host()]["auth"].as_str().expect("a secret");
    let hosts = server.scratch().join("hosts");
    let dir = hosts.join(server.host());
    fs::create_dir_all(&dir).expect("make a directory");
    write_hosts(&dir, &server.url(), auth);
    hosts
}

fn write_hosts(dir: &Path, url: &str, auth: &str) {
    let text = format!(
        "server = '{url}'\n[host.'{url}']\ncapabilities = ['pull', 'resolve']\n\
         [host.'{url}'.header]\nauthorization = ['Basic {auth}']\n"
    );
    fs::write(dir.join("hosts.toml"), text).expect("write hosts.toml");
}
