//! COPY and ADD, entry by entry.

use std::os::unix::fs::{PermissionsExt, symlink};

use crate::fixture::{Fixture, archive};

#[tokio::test]
async fn directories_files_and_wildcards_go_where_docker_puts_them() {
    let fixture = Fixture::new();
    fixture
        .file("dir/sub/x", "x")
        .file("dir/y", "y")
        .file("one.txt", "1")
        .file("two.txt", "2")
        .file("no.md", "");
    let image = fixture
        .build(
            "FROM scratch\n\
             COPY dir /content\n\
             COPY one.txt /renamed\n\
             COPY one.txt /into/\n\
             COPY *.txt /all/\n\
             COPY no.md* missing* /some/\n\
             COPY dir/sub one.txt /mixed/\n",
        )
        .await;
    assert_eq!(
        image.names(0),
        ["content/", "content/sub/", "content/sub/x", "content/y"]
    );
    assert_eq!(image.names(1), ["renamed"]);
    assert_eq!(image.names(2), ["into/", "into/one.txt"]);
    assert_eq!(image.names(3), ["all/", "all/one.txt", "all/two.txt"]);
    assert_eq!(image.names(4), ["some/", "some/no.md"]);
    assert_eq!(image.names(5), ["mixed/", "mixed/one.txt", "mixed/x"]);
}

#[tokio::test]
async fn owners_and_modes_follow_the_flags() {
    let fixture = Fixture::new();
    fixture.file("d/f", "f");
    let file = fixture.context.path().join("d/f");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&file, Some(55), Some(66)).unwrap();
    let error = fixture
        .try_build("FROM base\nCOPY --chown=nobody d/f /x\n")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("nobody"), "{error}");
    let image = fixture
        .build(
            "FROM base\n\
             COPY d/f /plain\n\
             COPY --chown=app d/ /app/data/\n\
             COPY --chown=7:app --chmod=u+x,go= d/f /seven\n\
             RUN chown app /plain\n\
             FROM base\n\
             COPY --from=0 /plain /app /\n",
        )
        .await;
    assert_eq!(
        image.entry(1, "plain").owner,
        (1000, 0),
        "COPY --from keeps owners"
    );
    assert_eq!(image.entry(1, "data/f").owner, (1000, 1001));
    assert_eq!(image.entry(1, "plain").mode, 0o640);
    let image = fixture
        .build("FROM base\nCOPY --chown=7:app --chmod=u+x,go= d/f /new/seven\n")
        .await;
    let entry = image.entry(1, "new/seven");
    assert_eq!((entry.owner, entry.mode), ((7, 1001), 0o700));
    assert_eq!(image.entry(1, "new/").owner, (7, 1001), "made for the copy");
}

#[tokio::test]
async fn links_are_copied_as_links_and_never_lead_out() {
    let fixture = Fixture::new();
    fixture.file("d/real", "real");
    let root = fixture.context.path();
    symlink("real", root.join("d/link")).unwrap();
    symlink("/etc/shadow", root.join("d/out")).unwrap();
    symlink("../../../../etc/shadow", root.join("escape")).unwrap();
    symlink("/d/real", root.join("absolute")).unwrap();
    let image = fixture
        .build("FROM scratch\nCOPY d /d\nCOPY absolute /resolved\n")
        .await;
    assert_eq!(image.entry(0, "d/link").link.as_deref(), Some("real"));
    assert_eq!(image.entry(0, "d/out").link.as_deref(), Some("/etc/shadow"));
    assert_eq!(image.entry(1, "resolved").content, "real");
    let error = fixture
        .try_build("FROM scratch\nCOPY escape /x\n")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), "step");
    assert!(
        error.to_string().contains("Dockerfile:2") && error.to_string().contains("escape"),
        "{error}"
    );
}

#[tokio::test]
async fn links_in_the_destination_are_followed_inside_it() {
    let fixture = Fixture::new();
    fixture.file("f", "f");
    let image = fixture
        .build(
            "FROM base\n\
             RUN ln -s /usr/lib /abs && ln -s ../../../../usr/lib /rel && ln -s /nowhere/yet /dangling\n\
             COPY f /abs/one\n\
             COPY f /rel/two\n\
             COPY f /lib/three\n\
             COPY f /dangling/four\n",
        )
        .await;
    assert_eq!(image.names(2), ["usr/", "usr/lib/", "usr/lib/one"]);
    assert_eq!(image.names(3), ["usr/", "usr/lib/", "usr/lib/two"]);
    assert_eq!(image.names(4), ["usr/", "usr/lib/", "usr/lib/three"]);
    assert_eq!(image.names(5), ["nowhere/", "nowhere/yet/", "nowhere/yet/four"]);
}

#[tokio::test]
async fn what_can_not_be_replaced_is_an_error() {
    let fixture = Fixture::new();
    fixture
        .file("f", "f")
        .file("d/etc", "file")
        .file("e/etc/motd/x", "");
    for (dockerfile, place) in [
        ("FROM base\nCOPY d/ /\n", "etc"),
        ("FROM base\nCOPY e/ /\n", "motd"),
        ("FROM base\nCOPY f /etc/motd/\n", "motd"),
    ] {
        let error = fixture.try_build(dockerfile).await.unwrap_err();
        assert_eq!(error.kind(), "step", "{error}");
        assert!(error.to_string().contains(place), "{error}");
    }
}

#[tokio::test]
async fn add_unpacks_archives_and_copy_does_not() {
    let fixture = Fixture::new();
    let content = tempfile::tempdir().unwrap();
    std::fs::create_dir(content.path().join("inner")).unwrap();
    std::fs::write(content.path().join("inner/file"), "packed").unwrap();
    let plain = archive(content.path());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &plain).unwrap();
    std::fs::write(fixture.context.path().join("a.tar.gz"), gzip.finish().unwrap()).unwrap();
    std::fs::write(
        fixture.context.path().join("b.tar.zst"),
        zstd::encode_all(&plain[..], 1).unwrap(),
    )
    .unwrap();
    fixture.file("note.gz", "not an archive");
    let image = fixture
        .build(
            "FROM scratch\n\
             ADD a.tar.gz /one/\n\
             ADD b.tar.zst /two\n\
             COPY a.tar.gz /three/\n\
             ADD note.gz /four\n",
        )
        .await;
    assert_eq!(image.names(0), ["one/", "one/inner/", "one/inner/file"]);
    assert_eq!(
        image.entry(0, "one/inner/file").mtime,
        1_706_745_600,
        "as in the archive"
    );
    assert_eq!(image.names(1), ["two/", "two/inner/", "two/inner/file"]);
    assert_eq!(image.names(2), ["three/", "three/a.tar.gz"]);
    assert_eq!(image.entry(3, "four").content, "not an archive");
    fixture.file("c.tar.xz", "\u{0}");
    std::fs::write(fixture.context.path().join("c.tar.xz"), b"\xfd7zXZ\0....").unwrap();
    let error = fixture
        .try_build("FROM scratch\nADD c.tar.xz /\n")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("xz"), "{error}");
}

#[tokio::test]
async fn heredocs_become_files_and_scripts() {
    let fixture = Fixture::new();
    let image = fixture
        .build("FROM base\nCOPY <<EOF /etc/conf\nkey=value\nEOF\nRUN <<EOF\necho one > /one\necho two > /two\nEOF\n")
        .await;
    let entry = image.entry(1, "etc/conf");
    assert_eq!((entry.content.as_str(), entry.mode), ("key=value\n", 0o644));
    assert_eq!(image.names(2), ["one", "two"]);
}

#[tokio::test]
async fn hardlinks_stay_hardlinks() {
    let fixture = Fixture::new();
    let image = fixture
        .build("FROM base AS made\nRUN mkdir /t && echo x > /t/a && ln /t/a /t/b\nFROM scratch\nCOPY --from=made /t /t\n")
        .await;
    assert_eq!(image.entry(0, "t/b").link.as_deref(), Some("t/a"));
}
