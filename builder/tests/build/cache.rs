//! What is found again, and what makes the same digest.

use crate::fixture::Fixture;

const TWO_STAGES: &str = "FROM base AS tools\n\
     RUN echo tool > /tool\n\
     FROM base\n\
     WORKDIR /app\n\
     WORKDIR /etc\n\
     COPY lib/ /app/lib/\n\
     RUN cat /app/lib/a > /app/built\n\
     COPY --from=tools /tool /app/tool\n\
     COPY main /app/main\n\
     LABEL a=b\n";

fn context(fixture: &Fixture) {
    fixture
        .file("lib/a", "a\n")
        .file("lib/b", "b\n")
        .file("main", "main\n");
}

#[tokio::test]
async fn what_is_cached_is_neither_run_nor_unpacked() {
    let fixture = Fixture::new();
    context(&fixture);
    let first = fixture.build(TWO_STAGES).await;
    fixture.memory.take_events();

    // Another machine: nothing local, everything in the registry.
    let other = Fixture::with_memory(fixture.memory.clone());
    context(&other);
    let opened = other.memory.opened();
    let second = other.build(TWO_STAGES).await;
    assert_eq!(second.digest, first.digest);
    assert_eq!(other.memory.opened(), opened, "no layer was read");
    let steps = other.steps();
    assert!(
        steps.len() == 8 && steps.iter().all(|(_, what)| *what == "cached"),
        "{steps:?}"
    );
}

#[tokio::test]
async fn a_changed_file_runs_only_what_depends_on_it() {
    let fixture = Fixture::new();
    context(&fixture);
    fixture.build(TWO_STAGES).await;
    fixture.memory.take_events();
    fixture.file("main", "changed\n");
    let changed = fixture.build(TWO_STAGES).await;
    let ran: Vec<usize> = fixture
        .steps()
        .iter()
        .filter(|(_, what)| *what == "run")
        .map(|(step, _)| *step)
        .collect();
    assert_eq!(ran, [6, 7], "the last COPY and the LABEL");
    assert_eq!(
        changed.entries(changed.layers.len() - 1).last().unwrap().content,
        "changed\n"
    );

    // A time or an owner in the context is no change.
    let path = fixture.context.path().join("lib/a");
    std::os::unix::fs::chown(&path, Some(5), Some(5)).unwrap();
    std::fs::File::open(&path)
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH)
        .unwrap();
    let again = fixture.build(TWO_STAGES).await;
    assert_eq!(again.digest, changed.digest);
    assert!(fixture.steps().iter().all(|(_, what)| *what == "cached"));
}

#[tokio::test]
async fn fresh_machines_make_the_same_digest() {
    let mut digests = Vec::new();
    for _ in 0..2 {
        let fixture = Fixture::new();
        context(&fixture);
        digests.push(fixture.build(TWO_STAGES).await.digest);
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    assert_eq!(digests[0], digests[1]);
}

#[tokio::test]
async fn a_step_on_cached_layers_makes_what_a_step_on_fresh_ones_makes() {
    let begin = "FROM base\nRUN echo one > /one && touch -d '2030-01-01 00:00:00' /future\n";
    let end = "RUN cp -p /one /two && cp -p /future /future2 && chmod 600 /one && echo x > /three\n";
    let both = format!("{begin}{end}");

    let fresh = Fixture::new();
    let live = fresh.build(&both).await;

    let cached = Fixture::new();
    cached.build(begin).await;
    let other = Fixture::with_memory(cached.memory.clone());
    let unpacked = other.build(&both).await;
    assert_eq!(unpacked.entries(2), live.entries(2));
    assert_eq!(unpacked.digest, live.digest);
    // busybox cuts the times it copies to seconds, so the copy counts as written by the step.
    assert_eq!(live.entry(2, "two").mtime, live.entry(2, "three").mtime);
    assert_eq!(
        live.entry(2, "one").mtime,
        live.entry(1, "one").mtime,
        "chmod keeps a time"
    );
    assert_eq!(live.entry(2, "future2").mtime, 1_893_456_000);
}

/// A command that writes something else each time was run again alone: what stood on the old outcome is no layer for
/// the new one.
#[tokio::test]
async fn a_layer_is_found_only_on_the_layers_that_it_was_made_on() {
    let first = "FROM base\nRUN cat /proc/sys/kernel/random/uuid > /one\n";
    let both = format!("{first}RUN cp /one /two\n");
    let fixture = Fixture::new();
    let before = fixture.build(&both).await;
    assert_eq!(before.entry(1, "one").content, before.entry(2, "two").content);
    let mut again = fixture.input(first);
    again.no_cache = true;
    fixture.build_input(again).await.unwrap();
    fixture.memory.take_events();

    let after = fixture.build(&both).await;
    assert_ne!(after.entry(1, "one").content, before.entry(1, "one").content);
    assert_eq!(after.entry(1, "one").content, after.entry(2, "two").content);
    let ran = fixture.steps().into_iter().filter(|(_, what)| *what == "run");
    assert_eq!(ran.count(), 1, "the first step was found, the second was not");
    // Now both belong together.
    assert_eq!(fixture.build(&both).await.digest, after.digest);
    assert!(fixture.steps().iter().all(|(_, what)| *what == "cached"));
}

#[tokio::test]
async fn no_cache_runs_everything_and_makes_the_same() {
    let fixture = Fixture::new();
    context(&fixture);
    let first = fixture.build(TWO_STAGES).await;
    fixture.memory.take_events();
    let mut input = fixture.input(TWO_STAGES);
    input.no_cache = true;
    assert_eq!(fixture.build_input(input).await.unwrap().digest, first.digest);
    assert!(fixture.steps().iter().all(|(_, what)| *what == "run"));
}

#[tokio::test]
async fn an_image_of_ours_is_a_base_like_any_other() {
    let fixture = Fixture::new();
    let first = fixture.build("FROM base\nRUN echo one > /one\n").await;
    let second = fixture.build("FROM team/app:latest\nRUN chmod 600 /one\n").await;
    assert_eq!(second.layers.len(), 3);
    assert_eq!(second.entry(2, "one").mtime, first.entry(1, "one").mtime);
    let other = Fixture::with_memory(fixture.memory.clone());
    let mut input = other.input("FROM team/app:latest\nRUN chmod 640 /one\n");
    input.tags = Vec::new();
    let third = other.build_input(input).await.unwrap();
    assert_eq!(
        other.image(third.digest).entry(3, "one").mtime,
        first.entry(1, "one").mtime,
        "unpacked here"
    );
    assert_eq!(third.names[0], format!("team/app@{}", third.digest));
}

#[tokio::test]
async fn a_source_date_epoch_bounds_every_time() {
    let fixture = Fixture::new();
    fixture.file("a", "a");
    let mut input = fixture.input("FROM base\nCOPY a /a\nRUN echo $SOURCE_DATE_EPOCH > /b\n");
    input
        .build_args
        .insert("SOURCE_DATE_EPOCH".into(), "1000000000".into());
    let output = fixture.build_input(input).await.unwrap();
    let image = fixture.image(output.digest);
    assert_eq!(image.entry(1, "a").mtime, 1_000_000_000);
    assert_eq!(image.entry(2, "b").content, "1000000000\n");
    assert_eq!(image.config["created"], "2001-09-09T01:46:40Z");
    let plain = fixture.build("FROM base\nCOPY a /a\n").await;
    assert_ne!(plain.entry(1, "a").mtime, 1_000_000_000);
}
