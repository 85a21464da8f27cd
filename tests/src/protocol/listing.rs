//! Pages of tags and repositories.

use crate::harness::image::{Image, OCI_MANIFEST};
use crate::harness::server::Server;
use crate::harness::tool::Tool;

/// Follows `Link` to the end; every page's items.
fn pages(server: &Server, first: &str, field: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut target = Some(first.to_owned());
    while let Some(page) = target {
        let answer = server.request("GET", &page).send().expect(200);
        let items = answer.json()[field].as_array().expect("a list").clone();
        pages.push(
            items
                .iter()
                .map(|item| item.as_str().expect("a name").to_owned())
                .collect(),
        );
        target = answer.header("link").map(|link| {
            assert!(
                link.contains("rel=\"next\"") || link.contains("rel=next"),
                "{link}"
            );
            let next = link.split(['<', '>']).nth(1).expect("a target in <>");
            next.to_owned()
        });
        assert!(pages.len() < 100, "pages without end");
    }
    pages
}

fn tag_all(server: &Server, repository: &str, tags: &[String]) {
    let image = Image::small(100);
    image.push(server, repository, &tags[0]);
    for tag in &tags[1..] {
        let put = server.request("PUT", &format!("/v2/{repository}/manifests/{tag}"));
        put.header("Content-Type", OCI_MANIFEST)
            .body(image.manifest.clone())
            .send()
            .expect(201);
    }
}

#[test]
fn tags_come_in_order_and_in_pages() {
    let server = Server::start();
    let mut tags: Vec<String> = (0..23).map(|number| format!("v{}", number * 7 % 23)).collect();
    tags.extend([
        "A".to_owned(),
        "_".to_owned(),
        "a.b-c".to_owned(),
        "Z9".to_owned(),
    ]);
    tag_all(&server, "app", &tags);
    tags.sort();

    assert_eq!(pages(&server, "/v2/app/tags/list", "tags").concat(), tags);
    let by_five = pages(&server, "/v2/app/tags/list?n=5", "tags");
    assert_eq!(by_five.concat(), tags);
    assert!(
        by_five[..by_five.len() - 1].iter().all(|page| page.len() == 5),
        "{by_five:?}"
    );
    // `last` need not exist, and the answer starts after it.
    let after = pages(&server, "/v2/app/tags/list?last=v1zzz", "tags").concat();
    let expected: Vec<String> = tags
        .iter()
        .filter(|tag| tag.as_str() > "v1zzz")
        .cloned()
        .collect();
    assert_eq!(after, expected);
    assert_eq!(
        pages(&server, "/v2/app/tags/list?last=zzz", "tags").concat(),
        Vec::<String>::new()
    );
    let nothing = server.request("GET", "/v2/app/tags/list?n=0").send().expect(200);
    assert_eq!(nothing.json()["tags"], serde_json::json!([]));
}

#[test]
fn page_size_is_bounded_and_must_be_a_number() {
    let mut server = Server::start();
    tag_all(&server, "app", &["one".to_owned(), "two".to_owned()]);
    for n in ["2147483648", "99999999999"] {
        let answer = server.request("GET", &format!("/v2/app/tags/list?n={n}")).send();
        assert!([200, 400].contains(&answer.status), "n={n}: {}", answer.status);
    }
    for n in ["-1", "abc", "1.5"] {
        server
            .request("GET", &format!("/v2/app/tags/list?n={n}"))
            .send()
            .expect_error(400, "PAGINATION_NUMBER_INVALID");
    }
    // A parameter nobody knows is no error (containerd sends `ns`).
    server
        .request("GET", "/v2/app/tags/list?ns=docker.io&unknown=1")
        .send()
        .expect(200);
    server.assert_healthy();
}

#[test]
fn unknown_repository_has_no_tags() {
    let server = Server::start();
    server
        .request("GET", "/v2/no/such/tags/list")
        .send()
        .expect_error(404, "NAME_UNKNOWN");
}

#[test]
fn catalog_comes_in_order_and_in_pages() {
    let server = Server::start();
    let mut names: Vec<String> = ["b", "a/b/c", "a-b", "a", "z/y", "m.n_o"]
        .map(str::to_owned)
        .to_vec();
    for name in &names {
        Image::small(110).push(&server, name, "v1");
    }
    names.sort();
    assert_eq!(pages(&server, "/v2/_catalog", "repositories").concat(), names);
    assert_eq!(pages(&server, "/v2/_catalog?n=2", "repositories").concat(), names);
    // An upload session alone makes no repository.
    server
        .request("POST", "/v2/begun/blobs/uploads/")
        .send()
        .expect(202);
    assert_eq!(pages(&server, "/v2/_catalog", "repositories").concat(), names);
}

/// More tags than a page has. The clients follow `Link`, each in its own way, and none loses, doubles or reorders one.
#[test]
fn clients_follow_the_pages_to_the_end() {
    let server = Server::start();
    let mut tags: Vec<String> = (0..1_010).map(|number| format!("v{number}")).collect();
    std::thread::scope(|scope| {
        for some in tags.chunks(130) {
            scope.spawn(|| tag_all(&server, "many/tags", some));
        }
    });
    tags.sort();
    let name = format!("{}/many/tags", server.host());
    let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<String>>();

    let crane = Tool::peer("crane", "clients").env("DOCKER_CONFIG", server.scratch());
    assert_eq!(lines(crane.args(["ls", &name]).ok()), tags);
    let oras = Tool::peer("oras", "clients").env("DOCKER_CONFIG", server.scratch());
    assert_eq!(
        lines(oras.args(["repo", "tags", "--plain-http", &name]).ok()),
        tags
    );
    let skopeo = Tool::debian("skopeo").args(["list-tags", "--tls-verify=false"]);
    let listed: serde_json::Value =
        serde_json::from_str(&skopeo.arg(format!("docker://{name}")).ok()).expect("JSON");
    assert_eq!(listed["Tags"], serde_json::json!(tags));
}
