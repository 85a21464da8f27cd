//! What runs again, and what doesn't.

use std::fs::File;
use std::time::{Duration, SystemTime};

use crate::harness::build::{Built, Context, import};
use crate::harness::server::Server;

const DOCKERFILE: &str = "\
FROM busybox AS one
COPY a.txt /a
RUN cat /a > /from-a
FROM busybox AS two
COPY b.txt /b
RUN cat /b > /from-b
FROM busybox
COPY --from=one /from-a /
COPY --from=two /from-b /
RUN cat /from-a /from-b > /both
COPY c.txt /c
";

fn context() -> Context {
    Context::new(DOCKERFILE)
        .file("a.txt", "a\n")
        .file("b.txt", "b\n")
        .file("c.txt", "c\n")
}

/// The texts of the steps that ran although a cache was there; FROM makes nothing.
fn ran(built: &Built) -> Vec<&str> {
    let steps = built
        .steps
        .iter()
        .filter(|step| !step.is_cached && makes_a_layer(&step.text));
    steps.map(|step| step.text.as_str()).collect()
}

fn makes_a_layer(text: &str) -> bool {
    ["RUN", "COPY", "ADD"]
        .iter()
        .any(|instruction| text.starts_with(instruction))
}

#[test]
fn second_build_runs_nothing() {
    let server = Server::start();
    import(&server, "busybox", "busybox:latest");
    let context = context();
    let first = context.build(&server, "app:v1");
    assert_eq!(ran(&first).len(), 8, "{:?}", first.steps);
    assert_eq!(first.step("RUN cat /b").line, 6);
    let second = context.build(&server, "app:v2");
    assert_eq!((ran(&second), &second.digest), (vec![], &first.digest));

    // Neither do times of files, nor another directory, nor a restarted server.
    let copy = self::context();
    let old = SystemTime::now() - Duration::from_secs(100_000);
    File::open(copy.path().join("a.txt"))
        .and_then(|file| file.set_modified(old))
        .expect("set a time");
    let mut server = server;
    server.stop();
    server.restart();
    let third = copy.build(&server, "app:v3");
    assert_eq!((ran(&third), &third.digest), (vec![], &first.digest));
}

#[test]
fn changed_file_reruns_what_depends_on_it() {
    let server = Server::start();
    import(&server, "busybox", "busybox:latest");
    let context = context();
    let first = context.build(&server, "app:v1");

    context.write("c.txt", "changed\n");
    assert_eq!(ran(&context.build(&server, "app:v2")), ["COPY c.txt /c"]);
    context.write("b.txt", "changed\n");
    let third = context.build(&server, "app:v3");
    let expected = [
        "COPY b.txt /b",
        "RUN cat /b > /from-b",
        "COPY --from=two /from-b /",
        "RUN cat /from-a /from-b > /both",
        "COPY c.txt /c",
    ];
    assert_eq!(ran(&third), expected);
    // Back to what was: found again.
    context.write("b.txt", "b\n");
    context.write("c.txt", "c\n");
    let back = context.build(&server, "app:v4");
    assert_eq!((ran(&back), &back.digest), (vec![], &first.digest));
}

#[test]
fn no_cache_runs_everything_and_makes_the_same() {
    let server = Server::start();
    import(&server, "busybox", "busybox:latest");
    let context = context();
    let first = context.build(&server, "app:v1");
    let second = context.build_with(&server, "app:v2", &["--no-cache"]);
    assert_eq!(ran(&second).len(), 8, "{:?}", second.steps);
    assert_eq!(second.digest, first.digest);
}

#[test]
fn build_argument_reruns_the_steps_that_see_it() {
    let server = Server::start();
    import(&server, "busybox", "busybox:latest");
    let dockerfile = "FROM busybox\nRUN echo before > /before\nARG V=1\nRUN echo $V > /v\n";
    let context = Context::new(dockerfile);
    context.build(&server, "app:v1");
    let other = context.build_with(&server, "app:v2", &["--build-arg", "V=2"]);
    assert_eq!(ran(&other), ["RUN echo $V > /v"]);
    let same = context.build_with(&server, "app:v3", &["--build-arg", "V=1"]);
    assert_eq!(ran(&same), Vec::<&str>::new());
}

#[test]
fn cache_of_one_repository_is_not_another_s() {
    let server = Server::start();
    import(&server, "busybox", "busybox:latest");
    let context = context();
    context.build(&server, "mine:v1");
    assert_eq!(ran(&context.build(&server, "theirs:v1")).len(), 8);
}
