//! The worker dies in the middle of a build: the server goes on, and says what happened.

use std::fs;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::build::{Context, import};
use crate::harness::processes::{children, eventually, is_running};
use crate::harness::server::Server;

fn workers(server: &Server) -> Vec<i32> {
    children(server.pid(), "worker")
}

#[test]
fn killed_worker_fails_its_build_and_nothing_else() {
    let mut server = Server::start();
    import(&server, "busybox", "busybox:latest");
    let context = Context::new("FROM busybox\nRUN echo begun; sleep 87654\n");
    let failed = thread::scope(|scope| {
        let build = scope.spawn(|| context.build_fails(&server, "app:v1"));
        eventually("the step runs", || is_running("87654"));
        let worker = workers(&server)[0];
        kill_process(Pid::from_raw(worker).expect("a process id"), Signal::KILL).expect("kill the worker");
        build.join().expect("the build's client")
    });
    assert!(failed.stderr.contains("crashed"), "{failed}");
    assert_eq!(failed.code, Some(1));
    server.request("GET", "/v2/app/manifests/v1").send().expect(404);
    server.assert_healthy();
    eventually("the step ends with its worker", || !is_running("87654"));
    Context::new("FROM busybox\nRUN echo next\n").build(&server, "app:v2");
    server.assert_healthy();
}

#[test]
fn worker_ends_with_its_server() {
    let mut server = Server::start();
    import(&server, "busybox", "busybox:latest");
    for how in [Server::stop, Server::kill] {
        Context::new("FROM busybox\nRUN true\n").build_with(&server, "app:v1", &["--no-cache"]);
        let left = workers(&server);
        assert!(!left.is_empty(), "no worker to look at");
        how(&mut server);
        let is_left = |pid: &i32| fs::metadata(format!("/proc/{pid}")).is_ok();
        eventually("the worker ends with its server", || !left.iter().any(is_left));
        server.restart();
    }
}
