//! The clients people use beside Docker: what each copies in, it gets out again, and the bytes are those it sent.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::containerd::Namespace;
use crate::harness::image::{Image, sha256};
use crate::harness::proxy::Proxy;
use crate::harness::server::Server;
use crate::harness::tool::Tool;

/// A layout of a multi-platform image in the server's scratch directory.
fn layout(server: &Server, image: &Image) -> PathBuf {
    let dir = server.scratch().join("layout");
    image.write_layout(&dir, "v1");
    dir
}

/// The same manifest lies in the layout under its digest, children and blobs included.
#[track_caller]
fn assert_layout(dir: &Path, image: &Image) {
    let blobs = dir.join("blobs/sha256");
    for bytes in image.blobs.iter().chain([&image.manifest]) {
        let digest = sha256(bytes);
        let path = blobs.join(&digest["sha256:".len()..]);
        let got = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(got == *bytes, "another {digest}");
    }
    image.children.iter().for_each(|child| assert_layout(dir, child));
}

#[test]
fn skopeo() {
    let server = Server::start();
    let image = Image::multi_platform(300);
    let from = layout(&server, &image);
    let name = format!("docker://{}/skopeo/app:v1", server.host());
    let copy = [
        "copy",
        "--all",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
    ];
    let skopeo = || Tool::debian("skopeo").args(["--insecure-policy", "--override-os=linux"]);
    skopeo()
        .args(copy)
        .arg(format!("oci:{}:v1", from.display()))
        .arg(&name)
        .ok();
    image.assert_on(&server, "skopeo/app", "v1");

    let to = server.scratch().join("out");
    skopeo()
        .args(copy)
        .arg(&name)
        .arg(format!("oci:{}:v1", to.display()))
        .ok();
    assert_layout(&to, &image);
    let tags = skopeo()
        .args(["list-tags", "--tls-verify=false"])
        .arg(name.trim_end_matches(":v1"))
        .ok();
    assert!(tags.contains("\"v1\""), "{tags}");
    skopeo().args(["delete", "--tls-verify=false"]).arg(&name).ok();
    skopeo()
        .args(["inspect", "--tls-verify=false"])
        .arg(&name)
        .fails();
}

#[test]
fn podman() {
    let server = Server::start();
    let image = format!("{}/podman/app:v1", server.host());
    let storage = server.scratch().join("podman");
    let podman = || {
        let podman = Tool::debian("podman").arg("--root").arg(storage.join("root"));
        podman
            .arg("--runroot")
            .arg(storage.join("run"))
            .args(["--storage-driver=vfs", "--cgroup-manager=cgroupfs"])
    };
    podman()
        .args(["import", "-q"])
        .arg(crate::harness::paths::rootfs("busybox"))
        .arg(&image)
        .ok();
    let id = podman().args(["inspect", "--format={{.Id}}", &image]).ok();
    podman().args(["push", "-q", "--tls-verify=false", &image]).ok();
    podman().args(["rmi", "--force", &image]).ok();
    podman().args(["pull", "-q", "--tls-verify=false", &image]).ok();
    assert_eq!(podman().args(["inspect", "--format={{.Id}}", &image]).ok(), id);
    let mount = podman().args(["image", "mount", &image]).ok();
    assert!(
        Path::new(&mount).join("bin/busybox").exists(),
        "no file system in {mount}"
    );
    podman().args(["image", "umount", &image]).ok();
}

#[test]
fn crane() {
    let server = Server::start();
    let image = Image::multi_platform(310);
    let from = layout(&server, &image);
    let name = format!("{}/crane/app:v1", server.host());
    let crane = || Tool::peer("crane", "clients").env("DOCKER_CONFIG", server.scratch());
    crane().args(["push", "--index"]).arg(&from).arg(&name).ok();
    // `crane push` wraps the layout's own index.json around the image.
    let pushed = image.digest();
    crane()
        .args(["tag", &format!("{}/crane/app@{pushed}", server.host()), "v2"])
        .ok();
    image.assert_on(&server, "crane/app", "v2");
    assert_eq!(
        crane()
            .args(["digest", &format!("{}/crane/app:v2", server.host())])
            .ok(),
        pushed
    );

    let copied = format!("{}/crane/copy:v2", server.host());
    crane()
        .args(["copy", &format!("{}/crane/app:v2", server.host()), &copied])
        .ok();
    image.assert_on(&server, "crane/copy", "v2");
    assert_eq!(
        crane()
            .args(["ls", &format!("{}/crane/copy", server.host())])
            .ok(),
        "v2"
    );

    let to = server.scratch().join("out");
    crane().args(["pull", "--format=oci", &copied]).arg(&to).ok();
    assert_layout(&to, &image);
    let catalog = crane().args(["catalog", &server.host()]).ok();
    assert_eq!(catalog, "crane/app\ncrane/copy");
    crane().args(["delete", &copied]).ok();
    crane().args(["manifest", &copied]).fails();
}

#[test]
fn oras() {
    let server = Server::start();
    let image = Image::multi_platform(320);
    let from = layout(&server, &image);
    let name = format!("{}/oras/app:v1", server.host());
    let oras = || {
        Tool::peer("oras", "clients")
            .env("DOCKER_CONFIG", server.scratch())
            .current_dir(server.scratch())
    };
    let source = format!("{}:v1", from.display());
    oras()
        .args([
            "cp",
            "--recursive",
            "--to-plain-http",
            "--from-oci-layout",
            &source,
            &name,
        ])
        .ok();
    image.assert_on(&server, "oras/app", "v1");

    fs::write(server.scratch().join("sbom.json"), "{\"packages\": []}").expect("write an artifact");
    let attach = [
        "attach",
        "--plain-http",
        "--artifact-type=application/example.sbom",
        &name,
        "sbom.json",
    ];
    oras().args(attach).ok();
    let found = oras()
        .args(["discover", "--plain-http", "--format=json", &name])
        .ok();
    assert!(found.contains("application/example.sbom"), "{found}");

    let to = server.scratch().join("out");
    let target = format!("{}:v1", to.display());
    oras()
        .args([
            "cp",
            "--recursive",
            "--from-plain-http",
            "--to-oci-layout",
            &name,
            &target,
        ])
        .ok();
    assert_layout(&to, &image);
    fs::write(server.scratch().join("artifact.txt"), "an artifact of its own").expect("write an artifact");
    let artifact = format!("{}/oras/artifact:v1", server.host());
    oras()
        .args([
            "push",
            "--plain-http",
            "--artifact-type=application/example",
            &artifact,
            "artifact.txt",
        ])
        .ok();
    let out = server.scratch().join("pulled");
    oras()
        .args(["pull", "--plain-http", "-o"])
        .arg(&out)
        .arg(&artifact)
        .ok();
    assert_eq!(
        fs::read_to_string(out.join("artifact.txt")).expect("the artifact"),
        "an artifact of its own"
    );
}

#[test]
fn regctl() {
    let server = Server::start();
    let image = Image::multi_platform(330);
    let from = layout(&server, &image);
    let name = format!("{}/regctl/app:v1", server.host());
    let regctl =
        || Tool::peer("regctl", "clients").env("REGCTL_CONFIG", server.scratch().join("regctl.json"));
    regctl()
        .args(["registry", "set", "--tls=disabled", &server.host()])
        .ok();
    regctl()
        .args(["image", "copy", &format!("ocidir://{}:v1", from.display()), &name])
        .ok();
    image.assert_on(&server, "regctl/app", "v1");
    let to = server.scratch().join("out");
    regctl()
        .args(["image", "copy", &name, &format!("ocidir://{}:v1", to.display())])
        .ok();
    assert_layout(&to, &image);
    assert_eq!(
        regctl()
            .args(["tag", "ls", &format!("{}/regctl/app", server.host())])
            .ok(),
        "v1"
    );
    let copied = format!("{}/regctl/mounted:v1", server.host());
    regctl().args(["image", "copy", &name, &copied]).ok();
    image.assert_on(&server, "regctl/mounted", "v1");
    regctl().args(["tag", "delete", &copied]).ok();
    regctl().args(["image", "digest", &copied]).fails();
}

/// By both of its ways: the daemon's transfer service, and `ctr` itself with the daemon's content store.
#[test]
fn containerd() {
    let server = Server::start();
    let ctr = Namespace::new("clients");
    let image = Image::multi_platform(340);
    let from = layout(&server, &image);
    for (way, local) in [("transfer", None), ("local", Some("--local"))] {
        let repository = format!("{}/{way}/app", server.host());
        let name = format!("{repository}:v1");
        ctr.import(&from, &repository);
        let push = ctr.images("push").arg("--plain-http").args(local);
        push.arg(&name).ok();
        image.assert_on(&server, &format!("{way}/app"), "v1");

        ctr.remove(&name);
        let pull = ctr.images("pull").args(["--plain-http", "--all-platforms"]);
        pull.args(["--snapshotter", "native"]).args(local).arg(&name).ok();
        let to = server.scratch().join(format!("out-{way}"));
        ctr.export(&name, &to);
        assert_layout(&to, &image);
        ctr.remove(&name);
    }
}

/// As on a node whose hosts.toml sends it to a mirror: every request then carries `ns`, the name that it asked for.
#[test]
fn containerd_by_another_name() {
    let server = Server::start();
    let ctr = Namespace::new("mirrored");
    let image = Image::multi_platform(345);
    image.push(&server, "library/app", "v1");
    let hosts = server.scratch().join("hosts");
    fs::create_dir_all(hosts.join("docker.io")).expect("make a directory");
    let url = server.url();
    let config = format!("server = '{url}'\n[host.'{url}']\ncapabilities = ['pull', 'resolve']\n");
    fs::write(hosts.join("docker.io/hosts.toml"), config).expect("write hosts.toml");
    let name = "docker.io/library/app:v1";
    let pull = ctr.images("pull").args(["--http-dump", "--all-platforms"]);
    let pull = pull.args(["--snapshotter", "native", "--hosts-dir"]);
    let ran = pull.arg(&hosts).arg(name).run();
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(ran.to_string().contains("?ns=docker.io"), "{ran}");
    let to = server.scratch().join("out");
    ctr.export(name, &to);
    assert_layout(&to, &image);
    ctr.remove(name);
}

/// A broken download goes on with an open-ended range; compressed answers on the way would spoil it.
#[test]
fn containerd_goes_on_where_a_download_broke() {
    let server = Server::start();
    let ctr = Namespace::new("broken");
    let image = Image::for_platform(348, "amd64", 6_000_000);
    image.push(&server, "large/app", "v1");
    let proxy = Proxy::cutting(server.address(), 2_000_000);
    let name = format!("{}/large/app:v1", proxy.address());
    let pull = ctr.images("pull").args(["--plain-http", "--all-platforms"]);
    pull.args(["--snapshotter", "native"]).arg(&name).ok();
    assert!(proxy.cuts() >= 1, "nothing was cut");
    assert!(proxy.bytes() < 9_000_000, "{} bytes came", proxy.bytes());
    let to = server.scratch().join("out");
    ctr.export(&name, &to);
    assert_layout(&to, &image);
    ctr.remove(&name);
}

/// What a manifest needs and the repository lacks is named to who pushes it.
#[test]
fn oras_is_told_which_blob_is_missing() {
    let server = Server::start();
    let image = Image::small(350);
    image.push(&server, "elsewhere/app", "v1");
    fs::write(server.scratch().join("manifest.json"), &image.manifest).expect("write a manifest");
    let push = |name: &str| {
        let name = format!("{}/{name}", server.host());
        Tool::peer("oras", "clients")
            .env("DOCKER_CONFIG", server.scratch())
            .current_dir(server.scratch())
            .args(["manifest", "push", "--plain-http", &name, "manifest.json"])
    };
    let refused = push("oras/app:v1").fails();
    for blob in &image.blobs {
        assert!(refused.stderr.contains(&sha256(blob)), "{refused}");
    }
    push("elsewhere/app:v2").ok();
    image.assert_on(&server, "elsewhere/app", "v2");
}

/// The same new image, at the same moment, to the same and to other repositories.
#[test]
fn clients_push_one_image_at_once() {
    let server = Server::start();
    let image = Image::for_platform(355, "amd64", 3_000_000);
    let from = layout(&server, &image);
    let name = |client: usize| (format!("at/once{}", client % 3), format!("v{client}"));
    std::thread::scope(|scope| {
        for client in 0..6 {
            let (server, from) = (&server, &from);
            let (repository, tag) = name(client);
            scope.spawn(move || {
                let name = format!("{}/{repository}:{tag}", server.host());
                let crane = Tool::peer("crane", "clients").env("DOCKER_CONFIG", server.scratch());
                crane.arg("push").arg(from).arg(name).ok();
            });
        }
    });
    for client in 0..6 {
        let (repository, tag) = name(client);
        image.assert_on(&server, &repository, &tag);
    }
}
