//! Builds that must not succeed: each says why and where, before it has done anything it need not have.

use crate::harness::build::{Context, import};
use crate::harness::image::tar_of;
use crate::harness::server::Server;

fn server() -> Server {
    let server = Server::start();
    import(&server, "busybox", "busybox:latest");
    server
}

#[test]
fn failing_run_reports_and_leaves_nothing() {
    let mut server = server();
    let dockerfile = "\
FROM busybox
RUN echo fine
RUN for i in 1 2 3; do echo \"line $i\"; done; echo 'last words' >&2; exit 7
RUN echo never
";
    let failed = Context::new(dockerfile).build_fails(&server, "broken:v1");
    let said = &failed.stderr;
    assert!(said.contains("RUN for i in 1 2 3"), "the command: {failed}");
    assert!(
        said.contains("exit code 7") || said.contains("exit code: 7"),
        "the exit code: {failed}"
    );
    assert!(
        said.contains("last words") && said.contains("line 3"),
        "the last output: {failed}"
    );
    assert!(
        said.contains("Dockerfile:3") || said.contains("line 3"),
        "the place: {failed}"
    );
    assert!(
        !said.contains("never\n") || !said.contains("echo never\nnever"),
        "{failed}"
    );
    assert_eq!(failed.code, Some(1));

    server
        .request("GET", "/v2/broken/manifests/v1")
        .send()
        .expect_error(404, "MANIFEST_UNKNOWN");
    let tags = server.request("GET", "/v2/broken/tags/list").send();
    assert!(
        tags.status == 404 || tags.json()["tags"] == serde_json::json!([]),
        "{}",
        tags.text()
    );
    let catalog = server.request("GET", "/v2/_catalog").send().expect(200).json();
    assert_eq!(catalog["repositories"], serde_json::json!(["busybox"]));
    server.assert_healthy();
}

#[test]
fn killed_command_is_told_from_a_failed_one() {
    let server = server();
    let failed =
        Context::new("FROM busybox\nRUN sh -c 'kill -9 $$'; exit $?\n").build_fails(&server, "broken:v1");
    assert!(
        failed.stderr.contains("137")
            || failed.stderr.contains("SIGKILL")
            || failed.stderr.contains("signal 9"),
        "{failed}"
    );
    let failed = Context::new("FROM busybox\nRUN no-such-program\n").build_fails(&server, "broken:v1");
    assert!(failed.stderr.contains("127"), "{failed}");
    let failed = Context::new("FROM busybox\nRUN [\"/no/such/program\"]\n").build_fails(&server, "broken:v1");
    assert!(failed.stderr.contains("/no/such/program"), "{failed}");
}

#[test]
fn constructs_not_executed_yet_are_named_with_their_line() {
    let mut server = server();
    for (construct, name) in [
        ("RUN --mount=type=secret,id=x cat /run/secrets/x", "--mount"),
        ("RUN --mount=type=cache,target=/c true", "--mount"),
        ("RUN --network=host true", "--network"),
        ("RUN --security=insecure true", "--security"),
        ("ADD https://example.com/file /file", "https://"),
    ] {
        let dockerfile = format!("FROM busybox\nRUN echo first-step-ran\n\n{construct}\n");
        let refused = Context::new(&dockerfile).build_fails(&server, "refused:v1");
        assert!(
            refused.stderr.contains(name),
            "{construct} isn't named: {refused}"
        );
        assert!(
            refused.stderr.contains("Dockerfile:4") || refused.stderr.contains("line 4"),
            "no line: {refused}"
        );
        assert!(
            !format!("{refused}").contains("\nfirst-step-ran"),
            "a step ran before {construct}: {refused}"
        );
    }
    server.assert_healthy();
}

#[test]
fn malformed_dockerfiles() {
    let mut server = server();
    let mut wrong = Vec::new();
    for (dockerfile, told) in [
        ("", "no instructions"),
        ("# only a comment\n", "no instructions"),
        ("RUN true\n", "FROM"),
        ("FROM busybox\nRUNN true\n", "RUNN"),
        ("FROM busybox\nCOPY one\n", "COPY"),
        ("FROM busybox\nCOPY --bogus=1 a b\n", "bogus"),
        ("FROM busybox\nCOPY no-such-file /\n", "no-such-file"),
        (
            "FROM busybox\nCOPY --from=later /a /b\nFROM busybox AS later\n",
            "later",
        ),
        ("FROM busybox AS Bad/Name\n", "Bad/Name"),
        ("FROM busybox\nENV\n", "ENV"),
        ("FROM busybox\nEXPOSE not-a-port\n", "not-a-port"),
        (
            "FROM no-such-image-here.invalid/x:v1\n",
            "no-such-image-here.invalid",
        ),
        ("FROM UPPER/case\n", "UPPER/case"),
        ("FROM busybox\nCOPY ../outside /\n", "outside"),
        ("FROM busybox\nUSER no-such-user\nRUN true\n", "no-such-user"),
        ("FROM busybox\nRUN <<EOF\nnever closed\n", "EOF"),
        ("FROM busybox\nARG X=${\n", "X"),
    ] {
        let ran = Context::new(dockerfile)
            .command(&server, "refused:v1")
            .args(["--progress", "plain"])
            .run();
        if ran.code != Some(1) || !ran.stderr.contains(told) || ran.stderr.contains("panicked") {
            wrong.push(format!("{dockerfile:?} should tell of {told}: {ran}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    server.request("GET", "/v2/refused/tags/list").send().expect(404);
    server.assert_healthy();
}

#[test]
fn missing_base_names_itself_and_its_line() {
    let server = server();
    let dockerfile = format!(
        "FROM busybox AS ok\n\nFROM {}/not/there:v9\nCOPY --from=ok /bin /bin\n",
        server.host()
    );
    let refused = Context::new(&dockerfile).build_fails(&server, "refused:v1");
    assert!(refused.stderr.contains("not/there"), "{refused}");
}

#[test]
fn without_rights_the_server_serves_and_says_what_builds_lack() {
    let mut server = Server::start_as_nobody();
    import(&server, "busybox", "busybox:latest");
    let refused = Context::new("FROM busybox\nRUN true\n").build_fails(&server, "app:v1");
    let said = refused.stderr.to_lowercase();
    assert!(
        said.contains("root") || said.contains("cap_sys_admin") || said.contains("permission"),
        "{refused}"
    );
    server.assert_healthy();
}

/// Archives that no client of ours makes, sent by hand.
#[test]
fn hostile_and_broken_contexts() {
    let mut server = server();
    let sentinel = server.scratch().join("sentinel");
    std::fs::create_dir(&sentinel).expect("make a directory");
    let outside = sentinel.display().to_string();
    let truncated = tar_of(&[("file", &[7; 5000])])[..1000].to_vec();
    let climbing =
        tar_with(|tar| raw_entry(tar, "../../../../../../..".to_owned() + &outside + "/a", b'0', ""));
    let absolute = tar_with(|tar| raw_entry(tar, format!("{outside}/b"), b'0', ""));
    let through_link = tar_with(|tar| {
        raw_entry(tar, "link".to_owned(), b'2', &outside);
        raw_entry(tar, "link/c".to_owned(), b'0', "");
    });
    let hard_link = tar_with(|tar| raw_entry(tar, "passwd".to_owned(), b'1', "/etc/passwd"));
    let device = tar_with(|tar| raw_entry(tar, "device".to_owned(), b'4', ""));
    let cases = [
        ("no tar", b"this is no tar archive at all".to_vec()),
        ("truncated", truncated),
        ("climbing out", climbing),
        ("absolute name", absolute),
        ("through a link", through_link),
        ("hard link to the host", hard_link),
        ("device", device),
        ("zeros", vec![0; 10]),
    ];
    for (name, tar) in cases {
        let posted = server
            .request("POST", "/api/v1/contexts")
            .header("Content-Type", "application/x-tar");
        let posted = posted.body(tar).send();
        if posted.status != 201 {
            assert_eq!(posted.status, 400, "{name}: {}", posted.text());
            assert!(
                posted.json()["errors"][0]["message"].is_string(),
                "{name}: {}",
                posted.text()
            );
            continue;
        }
        let id = posted.json()["id"].clone();
        let request = serde_json::json!({
            "context": id, "tags": [{"repository": "hostile", "tag": "v1"}],
            "dockerfile": {"name": "Dockerfile", "text": "FROM busybox\nCOPY . /ctx\n"},
        });
        let created = server
            .request("POST", "/api/v1/builds")
            .header("Content-Type", "application/json");
        let build = created.body(request.to_string()).send().expect(201).json()["id"]
            .as_str()
            .expect("an id")
            .to_owned();
        // Ends with the build, whatever becomes of it: some entries are only dropped or kept inside.
        server
            .request("GET", &format!("/api/v1/builds/{build}/events?after=0"))
            .send()
            .expect(200);
        let status = server
            .request("GET", &format!("/api/v1/builds/{build}"))
            .send()
            .expect(200)
            .json();
        assert_eq!(status["state"], "finished", "{name}: {status}");
        if ["no tar", "truncated"].contains(&name) {
            assert_eq!(status["outcome"]["outcome"], "failed", "{name}: {status}");
        }
    }
    let left: Vec<_> = std::fs::read_dir(&sentinel).expect("list").collect();
    assert!(left.is_empty(), "files were written outside: {left:?}");
    server.assert_healthy();
}

fn tar_with(fill: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    fill(&mut tar);
    tar.into_inner().expect("finish a tar in memory")
}

/// The crate `tar` refuses to write such names, so they go into the header by hand.
fn raw_entry(tar: &mut tar::Builder<Vec<u8>>, name: String, kind: u8, link: &str) {
    let mut header = tar::Header::new_ustar();
    header.set_size(0);
    header.set_mode(0o644);
    let old = header.as_old_mut();
    old.name[..name.len()].copy_from_slice(name.as_bytes());
    old.linkname[..link.len()].copy_from_slice(link.as_bytes());
    old.linkflag = [kind];
    header.set_cksum();
    tar.append(&header, std::io::empty()).expect("append to memory");
}
