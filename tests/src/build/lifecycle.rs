//! A build as a resource: cancelled, watched twice, run beside others.

use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::build::{Context, import};
use crate::harness::processes::{eventually, is_running};
use crate::harness::server::Server;

#[test]
fn interrupted_build_is_cancelled_with_all_its_processes() {
    let mut server = Server::start();
    import(&server, "busybox", "busybox:latest");
    let context = Context::new("FROM busybox\nRUN sh -c 'sleep 98765 & setsid sleep 98764' & sleep 98763\n");
    let mut command = context
        .command(&server, "slow:v1")
        .args(["--progress", "plain"])
        .into_command();
    let mut client = command.spawn().expect("start a build");
    for seconds in ["98765", "98764", "98763"] {
        eventually("the command runs", || is_running(seconds));
    }
    kill_process(Pid::from_child(&client), Signal::INT).expect("interrupt the client");
    assert_eq!(client.wait().expect("wait for the client").code(), Some(130));
    for seconds in ["98765", "98764", "98763"] {
        eventually("the command is gone", || !is_running(seconds));
    }
    server.request("GET", "/v2/slow/manifests/v1").send().expect(404);
    Context::new("FROM busybox\nRUN echo next\n").build(&server, "next:v1");
    server.assert_healthy();
}

#[test]
fn events_can_be_read_again() {
    let server = Server::start();
    import(&server, "busybox", "busybox:latest");
    let request = serde_json::json!({
        "tags": [{"repository": "app", "tag": "v1"}], "detached": true,
        "dockerfile": {"name": "Dockerfile", "text": "FROM busybox\nRUN echo one; echo two\n"},
    });
    let created = server
        .request("POST", "/api/v1/builds")
        .header("Content-Type", "application/json");
    let id = created.body(request.to_string()).send().expect(201).json()["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let events = |after: u64| {
        let answer = server
            .request("GET", &format!("/api/v1/builds/{id}/events?after={after}"))
            .send()
            .expect(200);
        let lines = answer
            .body
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty());
        let parsed = lines.map(|line| serde_json::from_slice::<serde_json::Value>(line).expect("an event"));
        parsed
            .map(|event| (event["seq"].as_u64().expect("a number"), event["event"].clone()))
            .collect::<Vec<_>>()
    };
    let all = events(0);
    assert!(all.windows(2).all(|pair| pair[0].0 < pair[1].0), "{all:?}");
    assert!(all.iter().any(|(_, event)| event["text"] == "two"), "{all:?}");
    let half = all[all.len() / 2].0;
    let rest: Vec<_> = all.iter().filter(|(seq, _)| *seq > half).cloned().collect();
    assert_eq!(events(half), rest);
    server.request("GET", "/v2/app/manifests/v1").send().expect(200);
    server
        .request("GET", "/api/v1/builds/no-such-build/events")
        .send()
        .expect(404);
}

#[test]
fn builds_run_side_by_side() {
    let server = Server::start();
    import(&server, "busybox", "busybox:latest");
    thread::scope(|scope| {
        for number in 0..4 {
            let server = &server;
            scope.spawn(move || {
                let dockerfile = format!(
                    "FROM busybox\nRUN echo {number} > /n && sleep 1\nRUN test $(cat /n) = {number}\n"
                );
                Context::new(&dockerfile).build(server, &format!("app{number}:v1"));
            });
        }
    });
}

/// Two builds of the same thing at once make the same image.
#[test]
fn equal_builds_at_once_agree() {
    let server = Server::start();
    import(&server, "busybox", "busybox:latest");
    let digests: Vec<String> = thread::scope(|scope| {
        let build = |tag: &'static str| {
            let server = &server;
            scope.spawn(move || {
                Context::new("FROM busybox\nRUN echo same > /same\n")
                    .build(server, tag)
                    .digest
            })
        };
        let builds = [build("app:a"), build("app:b"), build("app:c")];
        builds.map(|build| build.join().expect("a build")).to_vec()
    });
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "{digests:?}");
}
