//! What a build makes, and how it fails.

use std::time::{Duration, Instant};

use builder::event::{Event, Stream};
use builder::exec::{BuildError, build};
use tokio_util::sync::CancellationToken;

use crate::fixture::Fixture;

#[tokio::test]
async fn run_and_copy_make_an_image() {
    let fixture = Fixture::new();
    fixture.file("src/hello.txt", "hello\n");
    let image = fixture
        .build(
            "FROM base AS first\n\
             ENV GREETING=hi\n\
             WORKDIR /app\n\
             COPY src/ ./data/\n\
             RUN cat data/hello.txt > out && echo $GREETING >> out && echo made && echo oops >&2\n\
             FROM base\n\
             COPY --from=first /app/out /result\n\
             USER app\n\
             CMD [\"cat\", \"/result\"]\n",
        )
        .await;
    assert_eq!(image.layers.len(), 2, "the base's and the copy's");
    assert_eq!(image.entry(1, "result").content, "hello\nhi\n");
    assert_eq!(image.config["config"]["User"], "app");
    assert_eq!(
        image.config["config"]["Cmd"],
        serde_json::json!(["cat", "/result"])
    );
    assert_eq!(image.config["config"]["Labels"]["base"], "1");
    assert_eq!(
        image.config["x-unknown"],
        serde_json::json!([1]),
        "fields we don't know stay"
    );
    assert_eq!(image.config["created"], "2024-03-01T00:00:00Z");
    assert_eq!(image.config["history"].as_array().unwrap().len(), 4);
    assert_eq!(image.config["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
    assert_eq!(fixture.memory.tags()["team/app:latest"], image.digest);

    let events = fixture.memory.take_events();
    let said = |stream, text: &str| Event::Output {
        step: 3,
        stream,
        text: text.into(),
    };
    assert!(events.contains(&said(Stream::Stdout, "made")) && events.contains(&said(Stream::Stderr, "oops")));
    assert!(matches!(events.first(), Some(Event::Planned { steps }) if steps.len() == 7));
    assert!(matches!(events.last(), Some(Event::Finished { names, .. }) if names == &["team/app:latest"]));
}

#[tokio::test]
async fn a_failing_run_tells_all_and_leaves_nothing_visible() {
    let fixture = Fixture::new();
    let before = (fixture.memory.tags(), fixture.memory.manifest_count());
    let error = fixture
        .try_build(
            "FROM base\nRUN echo fine > /a\nRUN echo first; echo last words >&2; exit 7\nRUN echo never\n",
        )
        .await
        .unwrap_err();
    assert_eq!((error.kind(), error.exit_code()), ("step", Some(7)));
    let text = error.to_string();
    for part in [
        "Dockerfile:3",
        "/bin/sh -c echo first",
        "exit code 7",
        "last words",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!((fixture.memory.tags(), fixture.memory.manifest_count()), before);
    assert_eq!(
        fixture.memory.records().len(),
        1,
        "the step that ended well is cached"
    );
    assert_eq!(fixture.steps(), [(0, "run"), (1, "failed")]);
}

#[tokio::test]
async fn deletions_users_and_times_reach_the_layers() {
    let fixture = Fixture::new();
    let image = fixture
        .build(
            "FROM base\n\
             RUN rm /etc/motd && mkdir /data && chown app:app /data && touch -d '2001-01-01 00:00:00' /old\n\
             USER app\n\
             RUN id > /data/id && cp -p /etc/group /data/group\n",
        )
        .await;
    assert_eq!(image.names(1), ["data/", "etc/", "etc/.wh.motd", "old"]);
    assert_eq!(image.entry(1, "data/").owner, (1000, 1001));
    assert_eq!(
        image.entry(1, "old").mtime,
        978_307_200,
        "a time set by hand stays"
    );
    let written = image.entry(1, "data/").mtime;
    assert!(
        written < 1_709_251_200,
        "what the step wrote is older than the base: {written}"
    );
    assert_eq!(image.names(2), ["data/", "data/group", "data/id"]);
    assert!(
        image
            .entry(2, "data/id")
            .content
            .starts_with("uid=1000(app) gid=1001(app)")
    );
    assert_eq!(
        image.entry(2, "data/group").mtime,
        1_706_745_600,
        "cp -p keeps the base's time"
    );
}

#[tokio::test]
async fn a_build_that_is_cancelled_stops_at_once_and_can_be_repeated() {
    let fixture = Fixture::new();
    let dockerfile = "FROM base\nRUN echo started && sleep 1000\n";
    let cancel = CancellationToken::new();
    let trigger = cancel.clone();
    let memory = fixture.memory.clone();
    tokio::spawn(async move {
        let mut seen = Vec::new();
        while !seen.iter().any(|event| matches!(event, Event::Output { .. })) {
            tokio::time::sleep(Duration::from_millis(10)).await;
            seen.extend(memory.take_events());
        }
        trigger.cancel();
    });
    let result = build(
        fixture.input(dockerfile),
        fixture.services(),
        &fixture.node,
        cancel,
    )
    .await;
    assert!(matches!(result, Err(BuildError::Cancelled)));
    let begin = Instant::now();
    fixture.build("FROM base\nRUN echo again\n").await;
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert!(!fixture.memory.tags().is_empty());
}

#[tokio::test]
async fn a_layer_is_made_while_the_next_step_runs_and_empty_steps_have_layers() {
    let fixture = Fixture::new();
    let image = fixture.build("FROM base\nRUN true\nRUN true\nRUN true\n").await;
    assert_eq!(image.layers.len(), 4);
    assert!(image.names(2).is_empty());
}

#[tokio::test]
async fn scratch_has_only_what_is_put_there() {
    let fixture = Fixture::new();
    fixture.file("tool", "#!/bin/true\n");
    let image = fixture
        .build("FROM scratch\nCOPY --chmod=755 tool /bin/tool\nENTRYPOINT [\"/bin/tool\"]\n")
        .await;
    assert_eq!(image.names(0), ["bin/", "bin/tool"]);
    assert_eq!(image.entry(0, "bin/tool").mode, 0o755);
    assert_eq!(image.config["created"], "1980-02-01T00:00:00Z");
    assert_eq!(image.config["architecture"], "amd64");
}

#[tokio::test]
async fn a_missing_base_and_a_broken_file_are_named() {
    let fixture = Fixture::new();
    let error = fixture.try_build("FROM nothing:1\n").await.unwrap_err();
    assert_eq!(error.kind(), "image");
    assert!(
        error.to_string().contains("Dockerfile:1") && error.to_string().contains("nothing:1"),
        "{error}"
    );
    let error = fixture.try_build("FROM base\nRUM x\n").await.unwrap_err();
    assert_eq!(error.kind(), "dockerfile");
    assert!(error.to_string().contains("Dockerfile:2"), "{error}");
    let error = fixture
        .try_build("FROM base\nUSER nobody-here\nRUN true\n")
        .await
        .unwrap_err();
    assert_eq!((error.kind(), error.exit_code()), ("step", None));
    assert!(error.to_string().contains("nobody-here"), "{error}");
}

#[tokio::test]
async fn the_steps_see_their_files_and_the_time_to_use() {
    let fixture = Fixture::new();
    let image = fixture
        .build(
            "FROM base\n\
             ARG WHO=me\n\
             WORKDIR /made/deep\n\
             RUN cat /etc/hosts > hosts; cat /etc/hostname > name; env > env; ls -a / > root; pwd > cwd\n",
        )
        .await;
    assert_eq!(image.names(1), ["made/", "made/deep/"]);
    assert_eq!(image.entry(2, "made/deep/cwd").content, "/made/deep\n");
    assert_eq!(image.entry(2, "made/deep/name").content, "layeryard\n");
    assert!(image.entry(2, "made/deep/hosts").content.contains("localhost"));
    let env = image.entry(2, "made/deep/env").content;
    for line in ["SOURCE_DATE_EPOCH=1709251200", "WHO=me", "PATH=/bin"] {
        assert!(env.lines().any(|other| other == line), "{env}");
    }
    assert!(
        !image
            .names(2)
            .iter()
            .any(|name| name.starts_with("etc") || name.starts_with("proc"))
    );
}

#[tokio::test]
async fn a_layer_that_can_not_be_made_fails_the_build() {
    let fixture = Fixture::new();
    let error = fixture
        .try_build("FROM base\nRUN mkdir /d && touch /d/.wh.x\nRUN true\n")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), "step");
    assert!(
        error.to_string().contains("/d/.wh.x") && error.to_string().contains("Dockerfile:2"),
        "{error}"
    );
    assert!(!fixture.memory.tags().contains_key("team/app:latest"));
    assert!(fixture.memory.records().is_empty());
}

#[tokio::test]
async fn stages_run_side_by_side_and_the_first_failure_counts() {
    let fixture = Fixture::new();
    let both = "FROM base AS a\nRUN sleep 1; echo a > /a\nFROM base AS b\nRUN sleep 1; echo b > /b\n\
                FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n";
    let begin = Instant::now();
    let image = fixture.build(both).await;
    assert!(
        begin.elapsed() < Duration::from_millis(1900),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(
        (image.names(0), image.names(1)),
        (vec!["a".to_owned()], vec!["b".to_owned()])
    );
    let broken = both
        .replace("echo a > /a", "exit 4")
        .replace("sleep 1; echo b", "sleep 60; echo b");
    let begin = Instant::now();
    let error = fixture.try_build(&broken).await.unwrap_err();
    assert_eq!(error.exit_code(), Some(4));
    assert!(begin.elapsed() < Duration::from_secs(20), "its sibling is killed");
}

#[tokio::test]
async fn a_heredoc_script_is_a_program() {
    let fixture = Fixture::new();
    let image = fixture
        .build("FROM base\nRUN <<EOF\n#!/bin/sh\necho $0 > /said\nEOF\n")
        .await;
    assert_eq!(image.entry(1, "said").content, "/dev/pipes/EOF\n");
}

#[tokio::test]
async fn an_image_that_deleted_the_places_of_mounts_can_run() {
    let fixture = Fixture::new();
    let text = "FROM base\nRUN true\nFROM scratch\nCOPY --from=0 / /\n";
    fixture.build(text).await;
    let layer = |entries: &[&str]| {
        let mut builder = tar::Builder::new(Vec::new());
        for path in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            header.set_mode(0o644);
            header.set_mtime(1_600_000_000);
            builder.append_data(&mut header, path, &b""[..]).unwrap();
        }
        builder.into_inner().unwrap()
    };
    fixture.memory.add_layers(
        "bare",
        "base",
        &[
            layer(&["etc/hostname", "etc/hosts"]),
            layer(&[
                "etc/.wh.hostname",
                "etc/.wh.hosts",
                "etc/.wh.resolv.conf",
                ".wh.dev",
            ]),
        ],
    );
    let first = fixture
        .build("FROM bare\nRUN cat /etc/hostname > /name; test -c /dev/null && ls /etc > /list\n")
        .await;
    assert_eq!(
        first.names(3),
        ["list", "name"],
        "the layer does not know of the places"
    );
    assert_eq!(first.entry(3, "name").content, "layeryard\n");
    let again = fixture.build("FROM bare\nRUN cat /etc/hostname > /name; test -c /dev/null && ls /etc > /list\nRUN ls /etc > /list2; echo x > /etc/x\n").await;
    assert_eq!(again.names(4), ["etc/", "etc/x", "list2"]);
}
