//! A killed process loses nothing that it wrote, because the page cache survives it; a power cut does. So the order of
//! system calls is read off a trace: fsync(file) < rename < fsync(directory) < database sync < 201.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::image::{Image, OCI_MANIFEST, noise, push_blob, sha256, with_digest};
use crate::harness::paths;
use crate::harness::server::Server;

const CALLS: &str = "fsync,fdatasync,rename,renameat,renameat2,link,linkat,write,writev,sendto,sendmsg";

#[test]
fn blob_is_durable_before_it_is_acknowledged() {
    let server = Server::start();
    let bytes = noise(600, 300_000);
    let location = server
        .request("POST", "/v2/app/blobs/uploads/")
        .send()
        .expect(202)
        .location();
    let location = server
        .request("PATCH", &location)
        .body(bytes.clone())
        .send()
        .expect(202)
        .location();
    let trace = Trace::start(&server);
    server
        .request("PUT", &with_digest(&location, &sha256(&bytes)))
        .send()
        .expect(201);
    assert_order(&trace.stop());
}

#[test]
fn blob_in_one_request_is_durable_before_it_is_acknowledged() {
    let server = Server::start();
    push_blob(&server, "warm", b"up");
    let bytes = noise(610, 300_000);
    let trace = Trace::start(&server);
    let post = server.request(
        "POST",
        &format!("/v2/app/blobs/uploads/?digest={}", sha256(&bytes)),
    );
    post.header("Content-Type", "application/octet-stream")
        .body(bytes)
        .send()
        .expect(201);
    assert_order(&trace.stop());
}

#[test]
fn manifest_and_deletion_are_durable_before_they_are_acknowledged() {
    let server = Server::start();
    let image = Image::small(620);
    image.push(&server, "app", "first");
    let trace = Trace::start(&server);
    let put = server
        .request("PUT", "/v2/app/manifests/second")
        .header("Content-Type", OCI_MANIFEST);
    put.body(image.manifest).send().expect(201);
    server
        .request("DELETE", "/v2/app/manifests/first")
        .send()
        .expect(202);
    let calls = trace.stop();
    let mut from = 0;
    for status in ["201", "202"] {
        let synced = find(&calls, from, "database sync", |call| call.syncs("registry.db"));
        // .cargo/config.toml: fsync would write the file's times as well.
        assert_eq!(calls[synced].name, "fdatasync", "{}", calls[synced].text);
        from = find(&calls, synced + 1, "the answer", |call| call.answers(status));
        assert!(
            calls[synced].end < calls[from].begin,
            "{status} before the database was synced"
        );
    }
}

fn assert_order(calls: &[Call]) {
    let renamed = find(calls, 0, "rename", |call| {
        call.name.starts_with("rename") || call.name.starts_with("link")
    });
    let target = &calls[renamed].text;
    assert!(
        target.contains("uploads/") && target.contains("blobs/sha256/"),
        "{target}"
    );
    let file = position(calls, |call| call.syncs("/uploads/")).expect("a sync of the uploaded file");
    let directory = find(calls, renamed + 1, "directory sync", |call| {
        call.syncs("/blobs/sha256/")
    });
    let database = find(calls, directory + 1, "database sync", |call| {
        call.syncs("registry.db")
    });
    let answer = position(calls, |call| call.answers("201")).expect("the answer 201");
    let order = [file, renamed, directory, database, answer];
    for pair in order.windows(2) {
        let (first, second) = (&calls[pair[0]], &calls[pair[1]]);
        assert!(
            first.end < second.begin,
            "not in order:\n{}\n{}",
            first.text,
            second.text
        );
    }
}

fn position(calls: &[Call], matches: impl Fn(&Call) -> bool) -> Option<usize> {
    calls.iter().position(matches)
}

#[track_caller]
fn find(calls: &[Call], from: usize, what: &str, matches: impl Fn(&Call) -> bool) -> usize {
    let all = || {
        calls
            .iter()
            .map(|call| call.text.as_str())
            .collect::<Vec<_>>()
            .join("\n")
    };
    from + position(&calls[from..], matches).unwrap_or_else(|| panic!("no {what} in\n{}", all()))
}

/// A system call that succeeded, with the lines of the trace where it began and ended.
struct Call {
    begin: usize,
    end: usize,
    name: String,
    text: String,
}

impl Call {
    fn syncs(&self, path: &str) -> bool {
        matches!(self.name.as_str(), "fsync" | "fdatasync") && self.text.contains(path)
    }

    fn answers(&self, status: &str) -> bool {
        self.text.contains(&format!("\"HTTP/1.1 {status} "))
    }
}

struct Trace {
    strace: Child,
    output: std::path::PathBuf,
}

impl Trace {
    fn start(server: &Server) -> Self {
        let output = server.scratch().join("trace");
        let log = server.scratch().join("strace.log");
        let stderr = fs::File::create(&log).expect("make strace's log");
        let strace = Command::new(paths::debian("strace"))
            .args([
                "-f",
                "-y",
                "-s",
                "64",
                "-e",
                &format!("trace={CALLS}"),
                "-p",
                &server.pid().to_string(),
                "-o",
            ])
            .arg(&output)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("start strace");
        let deadline = Instant::now() + Duration::from_secs(20);
        while !fs::read_to_string(&log).unwrap_or_default().contains("attached") {
            assert!(Instant::now() < deadline, "strace does not attach");
            thread::sleep(Duration::from_millis(10));
        }
        Self { strace, output }
    }

    /// Detaches, and reads what was seen.
    fn stop(mut self) -> Vec<Call> {
        kill_process(Pid::from_child(&self.strace), Signal::INT).expect("stop strace");
        self.strace.wait().expect("wait for strace");
        let text = fs::read_to_string(&self.output).expect("read the trace");
        parse(&text)
    }
}

/// Joins `call(… <unfinished ...>` with `<... call resumed>…` of the same thread. Failed calls are left out.
fn parse(text: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut unfinished = std::collections::HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread, (number, begun));
            continue;
        }
        let (begin, text) = match rest.strip_prefix("<... ") {
            None => (number, rest.to_owned()),
            Some(resumed) => {
                let Some((begin, begun)) = unfinished.remove(thread) else {
                    continue;
                };
                let ended = resumed.split_once('>').map_or("", |(_, ended)| ended);
                (begin, format!("{begun}{ended}"))
            }
        };
        let Some((name, _)) = text.split_once('(') else {
            continue;
        };
        if !text.contains("= -1 ") {
            calls.push(Call {
                begin,
                end: number,
                name: name.to_owned(),
                text: text.clone(),
            });
        }
    }
    calls.sort_by_key(|call| call.begin);
    calls
}

#[test]
fn trace_is_read_right() {
    let text = "\
7 fsync(9</d/uploads/x> <unfinished ...>
8 write(3<socket:[1]>, \"HTTP/1.1 201 Created\", 64) = 64
7 <... fsync resumed>)             = 0
7 rename(\"/a\", \"/b\") = -1 ENOENT (No such file or directory)
";
    let calls = parse(text);
    assert_eq!(calls.len(), 2);
    assert!(calls[0].syncs("/uploads/") && (calls[0].begin, calls[0].end) == (0, 2));
    assert!(calls[1].answers("201") && calls[0].end > calls[1].begin);
}
