//! Looks at this machine's processes, containers' included.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

const EVENTUALLY_SECONDS_MAX: u64 = 60;
const POLL: Duration = Duration::from_millis(20);

/// Some process has exactly this among its arguments.
pub(crate) fn is_running(argument: &str) -> bool {
    pids().any(|pid| arguments(pid).iter().any(|other| other == argument))
}

/// The children of a process that have exactly this among their arguments.
pub(crate) fn children(parent: u32, argument: &str) -> Vec<i32> {
    let parent = format!("PPid:\t{parent}");
    let is_child = |pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line == parent) && arguments(*pid).iter().any(|other| other == argument)
    };
    pids().filter(is_child).collect()
}

#[track_caller]
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(EVENTUALLY_SECONDS_MAX);
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "not within {EVENTUALLY_SECONDS_MAX} s: {what}"
        );
        thread::sleep(POLL);
    }
}

fn pids() -> impl Iterator<Item = i32> {
    let processes = fs::read_dir("/proc").expect("list processes").flatten();
    processes.filter_map(|process| process.file_name().to_str()?.parse().ok())
}

fn arguments(pid: i32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|&byte| byte == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect()
}
