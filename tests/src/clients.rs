//! The clients people use beside Docker: what each copies in, it gets out again, and the bytes are those it sent.

use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::image::{Image, sha256};
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
