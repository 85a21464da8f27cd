//! The worker dies in the middle of a build: the server goes on, and says what happened.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::build::{Context, import};
use crate::harness::server::Server;

/// The server's children that run `layeryard worker`.
fn workers(server: &Server) -> Vec<i32> {
    let processes = fs::read_dir("/proc").expect("list processes").flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| is_worker(pid, server.pid())).collect()
}

fn is_worker(pid: i32, server: u32) -> bool {
    let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let status = String::from_utf8_lossy(&read("status")).into_owned();
    let parent = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:\t"))
        .and_then(|pid| pid.parse().ok());
    parent == Some(server)
        && read("cmdline")
            .split(|&byte| byte == 0)
            .any(|argument| argument == b"worker")
}

#[test]
fn killed_worker_fails_its_build_and_nothing_else() {
    let mut server = Server::start();
    import(&server, "busybox", "busybox:latest");
    let context = Context::new("FROM busybox\nRUN echo begun; sleep 600\n");
    let failed = thread::scope(|scope| {
        let build = scope.spawn(|| context.build_fails(&server, "app:v1"));
        let deadline = Instant::now() + Duration::from_secs(60);
        let worker = loop {
            // The worker lives, and the step is under way.
            let is_running = server.scratch().exists() && is_sleeping();
            match workers(&server).first() {
                Some(&pid) if is_running => break pid,
                _ => assert!(Instant::now() < deadline, "no worker\n{}", server.log()),
            }
            thread::sleep(Duration::from_millis(20));
        };
        let worker = Pid::from_raw(worker).expect("a process id");
        kill_process(worker, Signal::KILL).expect("kill the worker");
        build.join().expect("the build's client")
    });
    assert!(failed.stderr.contains("builder crashed"), "{failed}");
    assert_eq!(failed.code, Some(1));
    server.request("GET", "/v2/app/manifests/v1").send().expect(404);
    server.assert_healthy();

    let deadline = Instant::now() + Duration::from_secs(20);
    while is_sleeping() {
        assert!(Instant::now() < deadline, "the step outlives its worker");
        thread::sleep(Duration::from_millis(20));
    }
    Context::new("FROM busybox\nRUN echo next\n").build(&server, "app:v2");
    server.assert_healthy();
}

fn is_sleeping() -> bool {
    let processes = fs::read_dir("/proc").expect("list processes").flatten();
    let mut lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.any(|line| line == b"sleep\x00600\x00")
}

#[test]
fn worker_ends_with_its_server() {
    let mut server = Server::start();
    import(&server, "busybox", "busybox:latest");
    Context::new("FROM busybox\nRUN true\n").build(&server, "app:v1");
    for how in [Server::stop, Server::kill] {
        let left = workers(&server);
        assert!(!left.is_empty(), "no worker to look at");
        how(&mut server);
        let deadline = Instant::now() + Duration::from_secs(20);
        while left
            .iter()
            .any(|pid| fs::metadata(format!("/proc/{pid}")).is_ok())
        {
            assert!(Instant::now() < deadline, "the worker outlives its server");
            thread::sleep(Duration::from_millis(20));
        }
        server.restart();
        Context::new("FROM busybox\nRUN true\n").build(&server, "app:v1");
    }
}
