//! What the instructions do. Most Dockerfiles here check themselves: a RUN that finds something wrong fails the build.

use serde_json::json;

use crate::harness::build::{Context, import};
use crate::harness::engine;
use crate::harness::image::tar_of;
use crate::harness::server::Server;

fn server() -> Server {
    let server = Server::start();
    import(&server, "busybox", "busybox:latest");
    server
}

/// The image's configuration.
fn config(server: &Server, repository: &str, tag: &str) -> serde_json::Value {
    let manifest = server
        .request("GET", &format!("/v2/{repository}/manifests/{tag}"))
        .send()
        .expect(200)
        .json();
    let digest = manifest["config"]["digest"]
        .as_str()
        .expect("a digest")
        .to_owned();
    server
        .request("GET", &format!("/v2/{repository}/blobs/{digest}"))
        .send()
        .expect(200)
        .json()
}

#[test]
fn configuration_is_what_the_instructions_say() {
    let server = server();
    let dockerfile = r#"
FROM busybox AS base
ENV A=1 B="two words"
ENV C=${A}x D=${MISSING:-default}
LABEL com.example.name="app" com.example.version=${A}
FROM base
ARG PORT=80
EXPOSE ${PORT} 53/udp 8000-8002
VOLUME /data /more
USER nobody:nogroup
WORKDIR /srv
WORKDIR app
ENTRYPOINT ["/bin/echo", "-n"]
CMD ["hello"]
"#;
    Context::new(dockerfile).build(&server, "app:v1");
    let config = config(&server, "app", "v1");
    assert_eq!(
        (&config["os"], &config["architecture"]),
        (&json!("linux"), &json!("amd64"))
    );
    let config = &config["config"];
    let env: Vec<&str> = config["Env"]
        .as_array()
        .expect("Env")
        .iter()
        .filter_map(|entry| entry.as_str())
        .collect();
    for entry in ["A=1", "B=two words", "C=1x", "D=default"] {
        assert!(env.contains(&entry), "{entry} not in {env:?}");
    }
    assert!(env.iter().any(|entry| entry.starts_with("PATH=")), "{env:?}");
    assert!(
        !env.iter().any(|entry| entry.starts_with("PORT=")),
        "an ARG is no ENV: {env:?}"
    );
    assert_eq!(
        config["Labels"],
        json!({"com.example.name": "app", "com.example.version": "1"})
    );
    let ports: Vec<&String> = config["ExposedPorts"]
        .as_object()
        .expect("ports")
        .keys()
        .collect();
    assert_eq!(ports, ["53/udp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp"]);
    assert_eq!(config["Volumes"], json!({"/data": {}, "/more": {}}));
    assert_eq!(
        (&config["User"], &config["WorkingDir"]),
        (&json!("nobody:nogroup"), &json!("/srv/app"))
    );
    assert_eq!(
        (&config["Entrypoint"], &config["Cmd"]),
        (&json!(["/bin/echo", "-n"]), &json!(["hello"]))
    );
}

#[test]
fn run_sees_what_docker_gives() {
    let server = server();
    let dockerfile = r#"
FROM busybox
SHELL ["/bin/sh", "-eu", "-c"]
RUN test "$(id -u):$(id -g)" = 0:0 && test "$PWD" = / && test -n "$PATH" && test -n "$HOME"
RUN test -c /dev/null && test -c /dev/urandom && echo x > /dev/null && test -e /proc/self/stat
RUN test "$(umask)" = 0022 && grep -q localhost /etc/hosts && test -s /etc/resolv.conf
RUN read -r line < /dev/stdin || test -z "${line:-}"
RUN ["/bin/sh", "-c", "test $0 = argument", "argument"]
ARG GIVEN=no
ENV KEPT=yes
RUN test "$GIVEN" = no && test "$KEPT" = yes
WORKDIR /made/by/workdir
RUN test "$PWD" = /made/by/workdir
USER 65534
RUN test "$(id -u)" = 65534 && ! touch /root/x 2>/dev/null && touch /tmp/mine
RUN sleep 1000 & true
USER 0
RUN test "$(stat -c %u /tmp/mine)" = 65534
"#;
    Context::new(dockerfile).build(&server, "app:v1");
}

#[test]
fn copy_places_files_as_docker_does() {
    let server = server();
    let dockerfile = r#"
FROM busybox AS src
RUN mkdir -p /tree/sub && echo one > /tree/one && echo two > /tree/sub/two && ln -s one /tree/link && chmod 600 /tree/one
FROM busybox
COPY file.txt /
COPY file.txt /renamed
COPY file.txt other.txt /into/
COPY dir /dir
COPY dir/ /slash/
COPY *.txt /glob/
COPY --chown=65534:65534 --chmod=640 file.txt /owned
COPY --from=src /tree /tree
COPY --from=busybox /bin/busybox /busybox
ADD archive.tar /unpacked/
ADD file.txt /added
RUN set -eu; cmp /file.txt /renamed; test -f /into/file.txt; test -f /into/other.txt; \
    test -f /dir/inner/deep; test -f /slash/inner/deep; test -f /glob/file.txt; test -f /glob/other.txt; \
    test "$(stat -c %u:%g:%a /owned)" = 65534:65534:640; \
    test "$(stat -c %u:%g /file.txt)" = 0:0; \
    test "$(readlink /tree/link)" = one; test "$(stat -c %a /tree/one)" = 600; test "$(cat /tree/sub/two)" = two; \
    test "$(cat /unpacked/in-tar)" = packed; cmp /added /file.txt; test -x /busybox; \
    test "$(readlink /dir/link)" = inner/deep
"#;
    let context = Context::new(dockerfile)
        .file("file.txt", "file\n")
        .file("other.txt", "other\n")
        .file("dir/inner/deep", "deep\n")
        .file("archive.tar", tar_of(&[("in-tar", b"packed\n")]));
    std::os::unix::fs::symlink("inner/deep", context.path().join("dir/link")).expect("make a link");
    context.build(&server, "app:v1");
}

#[test]
fn deletions_and_replacements_reach_the_engines() {
    let server = server();
    let dockerfile = r#"
FROM busybox
RUN mkdir -p /d/sub && touch /d/sub/a /d/sub/b /gone /file && echo x > /kept && ln /kept /hard
RUN rm /gone /d/sub/a && rm -r /file && mkdir /file && touch /file/inside
RUN rm -r /d && mkdir /d && touch /d/new && chmod 700 /kept
"#;
    Context::new(dockerfile).build(&server, "app:v1");
    let image = format!("{}/app:v1", server.host());
    let look = "ls -A / /d /file | tr '\\n' ' '; stat -c '%a %h' /kept; cmp /kept /hard && echo same";
    for engine in [engine::debian(), engine::newest()] {
        let seen = engine
            .docker(["run", "--rm", "--network=none", &image, "sh", "-c", look])
            .ok();
        assert!(
            !seen.contains("gone") && seen.contains("/d: new") && seen.contains("inside"),
            "{seen}"
        );
        assert!(seen.contains("700 ") && seen.contains("same"), "{seen}");
    }
}

#[test]
fn dockerignore_keeps_files_out() {
    let server = server();
    let dockerfile = r#"
FROM busybox
COPY . /ctx
RUN set -eu; cd /ctx; test -f keep.txt; test -f logs/important.log; test -f deep/a/keep; \
    ! test -e secret.env; ! test -e logs/debug.log; ! test -e deep/a/b.tmp; ! test -e node_modules
"#;
    let context = Context::new(dockerfile)
        .file(
            ".dockerignore",
            "# comment\n*.env\nlogs/*\n!logs/important.log\n**/*.tmp\n/node_modules/\n",
        )
        .file("keep.txt", "")
        .file("secret.env", "PASSWORD=x")
        .file("logs/debug.log", "")
        .file("logs/important.log", "")
        .file("deep/a/keep", "")
        .file("deep/a/b.tmp", "")
        .file("node_modules/big/file", "");
    context.build(&server, "app:v1");
    // An ignored file's change is no change.
    context.write("secret.env", "PASSWORD=y");
    let again = context.build(&server, "app:v2");
    assert!(again.step("COPY . /ctx").is_cached, "{:?}", again.steps);
    let missing = Context::new("FROM busybox\nCOPY secret.env /\n")
        .file(".dockerignore", "*.env")
        .file("secret.env", "");
    let refused = missing.build_fails(&server, "app:v3");
    assert!(refused.stderr.contains("secret.env"), "{refused}");
}

#[test]
fn target_and_file_choose_what_is_built() {
    let server = server();
    let dockerfile =
        "FROM busybox AS test\nRUN false\nFROM busybox AS release\nARG WHAT\nRUN echo $WHAT > /what\n";
    let context = Context::new("FROM nothing-of-this\n").file("deploy/App.dockerfile", dockerfile);
    let file = context.path().join("deploy/App.dockerfile");
    let file = file.to_str().expect("a path in UTF-8");
    let built = context.build_with(
        &server,
        "app:v1",
        &["-f", file, "--target", "release", "--build-arg", "WHAT=that"],
    );
    assert!(
        built.steps.iter().all(|step| !step.text.contains("false")),
        "a stage that nobody needs: {:?}",
        built.steps
    );
    let tool = context
        .command(&server, "app:v2")
        .args(["-f", file, "--target", "test"]);
    assert!(tool.fails().stderr.contains("RUN false"));
    let tool = context
        .command(&server, "app:v3")
        .args(["-f", file, "--target", "missing"]);
    assert!(tool.fails().stderr.contains("missing"));
}

#[test]
fn scratch_and_a_static_program_make_an_image() {
    let server = server();
    let dockerfile = "FROM scratch\nCOPY --from=busybox /bin/busybox /busybox\nRUN [\"/busybox\", \"mkdir\", \"/made\"]\nCMD [\"/busybox\", \"ls\", \"/\"]\n";
    Context::new(dockerfile).build(&server, "tiny:v1");
    let image = format!("{}/tiny:v1", server.host());
    let listed = engine::debian()
        .docker(["run", "--rm", "--network=none", &image])
        .ok();
    assert!(listed.contains("busybox") && listed.contains("made"), "{listed}");
}
