//! Policies, and what clients show of their refusals.

use std::thread;
use std::time::{Duration, Instant};

use crate::harness::image::{Image, noise, push_blob};
use crate::harness::server::Server;
use crate::harness::tool::Tool;

fn skopeo_push(server: &Server, image: &Image, name: &str) -> Tool {
    let dir = server
        .scratch()
        .join(format!("layout-{}", image.digest().replace(':', "-")));
    image.write_layout(&dir, "v1");
    Tool::debian("skopeo")
        .args(["--insecure-policy", "copy", "--all", "--dest-tls-verify=false"])
        .arg(format!("oci:{}:v1", dir.display()))
        .arg(format!("docker://{}/{name}", server.host()))
}

#[test]
fn immutable_tags_stay_where_they_are() {
    let server = Server::start_configured(
        "[[policy]]\nname = \"releases\"\nrepositories = [\"team/**\"]\nimmutable_tags = [\"v*\"]\n",
    );
    let (first, second) = (Image::small(950), Image::small(951));
    skopeo_push(&server, &first, "team/app:v1").ok();
    let refused = skopeo_push(&server, &second, "team/app:v1").fails();
    assert!(
        refused.stderr.contains("releases") && refused.stderr.contains("v1"),
        "{refused}"
    );
    first.assert_on(&server, "team/app", "v1");
    // The same again, another tag, another repository: all free.
    skopeo_push(&server, &first, "team/app:v1").ok();
    skopeo_push(&server, &second, "team/app:latest").ok();
    skopeo_push(&server, &first, "other/app:v1").ok();
    skopeo_push(&server, &second, "other/app:v1").ok();
    for target in ["v1".to_owned(), first.digest()] {
        let target = format!("/v2/team/app/manifests/{target}");
        let refused = server
            .request("DELETE", &target)
            .send()
            .expect_error(403, "DENIED");
        assert!(refused.text().contains("releases"), "{}", refused.text());
    }
    // Several tags of one manifest are set all or none.
    let target = format!("/v2/team/app/manifests/{}?tag=new&tag=v1", second.digest());
    let put = server
        .request("PUT", &target)
        .header("Content-Type", second.media_type);
    put.body(second.manifest).send().expect_error(403, "DENIED");
    server
        .request("GET", "/v2/team/app/manifests/new")
        .send()
        .expect(404);
}

#[test]
fn a_full_repository_says_how_full() {
    let server = Server::start_configured(
        "[[policy]]\nname = \"small\"\nrepositories = [\"small/*\"]\nquota = \"64KiB\"\n",
    );
    push_blob(&server, "small/app", &noise(1, 40_000));
    let image = Image::for_platform(960, "amd64", 60_000);
    let refused = skopeo_push(&server, &image, "small/app:big").fails();
    assert!(
        refused.stderr.contains("small") && refused.stderr.contains("quota"),
        "{refused}"
    );
    // What is there already costs nothing more, and others have their own.
    push_blob(&server, "small/app", &noise(1, 40_000));
    push_blob(&server, "large/app", &noise(2, 100_000));
    push_blob(&server, "small/other", &noise(3, 60_000));
    Image::small(961).push(&server, "small/app", "fits");
}

#[test]
fn a_read_only_server_is_read_only() {
    let mut server = Server::start();
    let image = Image::small(970);
    image.push(&server, "ro/app", "v1");
    server.stop();
    server.configure("read_only = true\n");
    server.restart();
    image.assert_on(&server, "ro/app", "v1");
    let refused = skopeo_push(&server, &Image::small(971), "ro/app:v2").fails();
    assert!(refused.stderr.contains("read-only"), "{refused}");
    server
        .request("DELETE", "/v2/ro/app/manifests/v1")
        .send()
        .expect_error(403, "DENIED");
    server.stop();
    server.configure("[[policy]]\nname = \"frozen\"\nrepositories = [\"ro/*\"]\nread_only = true\n");
    server.restart();
    let refused = skopeo_push(&server, &Image::small(971), "ro/app:v2").fails();
    assert!(refused.stderr.contains("frozen"), "{refused}");
    skopeo_push(&server, &Image::small(971), "rw/app:v2").ok();
}

#[test]
fn retention_keeps_the_last_and_can_be_undone() {
    let server = Server::start_configured(
        "[limits]\ncollect_interval = \"200ms\"\n\
         [[policy]]\nname = \"previews\"\nrepositories = [\"ci/*\"]\n\
         retention = { tags = [\"pr-*\"], keep_last = 2, interval = \"1s\" }\n",
    );
    for number in 0..5 {
        Image::small(980 + number).push(&server, "ci/app", &format!("pr-{number}"));
    }
    Image::small(990).push(&server, "ci/app", "latest");
    let told = server
        .layeryard(["gc", "--dry-run", "--repository", "ci/app"])
        .ok();
    assert!(told.contains("previews"), "{told}");
    let tags = || {
        server
            .request("GET", "/v2/ci/app/tags/list")
            .send()
            .expect(200)
            .json()["tags"]
            .clone()
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    let expected = serde_json::json!(["latest", "pr-3", "pr-4"]);
    while tags() != expected {
        assert!(Instant::now() < deadline, "{}", tags());
        thread::sleep(Duration::from_millis(100));
    }
    let trash = server.layeryard(["trash", "ci/app"]).ok();
    assert!(
        trash.contains("pr-0") && trash.contains("policy:previews"),
        "{trash}"
    );
    server.layeryard(["undelete", "ci/app:pr-2"]).ok();
    Image::small(982).assert_on(&server, "ci/app", "pr-2");
}

/// Retention looks at repositories by name: what it leaves alone comes before what shows that it was there.
#[test]
fn retention_leaves_read_only_repositories_alone() {
    let mut server = Server::start();
    for number in 0..3 {
        let image = Image::small(1980 + number);
        image.push(&server, "a-frozen/app", &format!("pr-{number}"));
        image.push(&server, "b-open/app", &format!("pr-{number}"));
    }
    server.stop();
    server.configure(
        "[[policy]]\nname = \"previews\"\nrepositories = [\"**\"]\n\
         retention = { keep_last = 1, interval = \"1s\" }\n\
         [[policy]]\nname = \"frozen\"\nrepositories = [\"a-frozen/*\"]\nread_only = true\n",
    );
    server.restart();
    let told = server
        .layeryard(["gc", "--dry-run", "--repository", "a-frozen/app"])
        .ok();
    assert!(told.contains("read-only by frozen"), "{told}");
    let tags = |repository: &str| {
        let target = format!("/v2/{repository}/tags/list");
        server.request("GET", &target).send().expect(200).json()["tags"].clone()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while tags("b-open/app") != serde_json::json!(["pr-2"]) {
        assert!(Instant::now() < deadline, "{}", tags("b-open/app"));
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(tags("a-frozen/app"), serde_json::json!(["pr-0", "pr-1", "pr-2"]));
}

/// Whatever keeps a repository as it is keeps it from every deletion, and from overwriting too.
#[test]
fn nothing_is_deleted_where_nothing_may_change() {
    let mut server = Server::start();
    let (image, other) = (Image::small(995), Image::small(996));
    image.push(&server, "ro/app", "v1");
    for blob in &other.blobs {
        push_blob(&server, "ro/app", blob);
    }
    let unused = push_blob(&server, "ro/app", b"nobody's");
    for config in [
        "read_only = true\n",
        "[access]\nanonymous = \"read-only\"\n",
        "[[policy]]\nname = \"frozen\"\nrepositories = [\"ro/*\"]\nread_only = true\n",
    ] {
        server.stop();
        server.configure(config);
        server.restart();
        let manifests = |reference: &str| format!("/v2/ro/app/manifests/{reference}");
        let calls = [
            ("DELETE", manifests("v1")),
            ("DELETE", manifests(&image.digest())),
            ("DELETE", format!("/v2/ro/app/blobs/{unused}")),
            ("PUT", manifests("v1")),
            ("PUT", manifests(&other.digest())),
            ("PUT", format!("{}?tag=v1", manifests(&other.digest()))),
            ("POST", "/v2/ro/app/blobs/uploads/".to_owned()),
            (
                "POST",
                format!("/v2/ro/app/blobs/uploads/?mount={unused}&from=ro/app"),
            ),
        ];
        for (method, target) in calls {
            let request = server
                .request(method, &target)
                .header("Content-Type", other.media_type);
            let answer = request.body(other.manifest.clone()).send();
            let shown = format!("{config}{method} {target}: {} {}", answer.status, answer.text());
            assert!([401, 403].contains(&answer.status), "{shown}");
        }
        image.assert_on(&server, "ro/app", "v1");
        let blob = format!("/v2/ro/app/blobs/{unused}");
        server.request("GET", &blob).send().expect(200);
    }
    server.stop();
    server.configure("");
    server.restart();
    server
        .request("DELETE", "/v2/ro/app/manifests/v1")
        .send()
        .expect(202);
}
