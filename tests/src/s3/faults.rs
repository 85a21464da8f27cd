//! Servers that die, on either side.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rand::Rng;

use super::{assert_blob, open};
use crate::crash::seeded;
use crate::harness::image::{noise, sha256, with_digest};
use crate::harness::processes::eventually;
use crate::harness::s3::Gateway;
use crate::harness::tell;
use crate::harness::tool::Tool;

const CLIENTS: u64 = 3;
/// `LAYERYARD_S3_KILLS` asks for more.
const KILLS: usize = 12;
/// Sizes on both sides of a part's.
const SIZES: [usize; 4] = [3_000, 700_000, 6_000_000, 18_000_000];
const OUTAGE: Duration = Duration::from_secs(10);

/// Pushes a blob in one of three ways; `None` where anything but success came.
fn push(server: std::net::SocketAddr, repository: &str, bytes: &[u8], way: u64) -> Option<()> {
    let request = |method: &str, target: &str| crate::harness::http::Request::new(method, server, target);
    let digest = sha256(bytes);
    let uploads = format!("/v2/{repository}/blobs/uploads/");
    let answered = |answer: anyhow::Result<crate::harness::http::Response>, status| {
        answer.ok().filter(|answer| answer.status == status)
    };
    let mut location = answered(request("POST", &uploads).try_send(), 202)?.location();
    let rest = match way % 3 {
        0 => bytes,
        1 => {
            let patched = request("PATCH", &location).body(bytes).try_send();
            location = answered(patched, 202)?.location();
            b""
        }
        _ => {
            let (first, rest) = bytes.split_at(bytes.len() / 2);
            let patched = request("PATCH", &location).chunked([first.to_vec()]).try_send();
            location = answered(patched, 202)?.location();
            rest
        }
    };
    let put = request("PUT", &with_digest(&location, &digest))
        .body(rest)
        .try_send();
    answered(put, 201).map(drop)
}

#[test]
fn killed_again_and_again_it_keeps_its_word() {
    let kills = std::env::var("LAYERYARD_S3_KILLS").map_or(KILLS, |text| text.parse().expect("a number"));
    let mut rng = seeded("s3::faults");
    let gateway = Gateway::start();
    let mut server = gateway.serve(&["LAYERYARD_LIMITS__UPLOAD_IDLE_MAX=2s"]);
    let mut acknowledged: Vec<(u64, usize)> = Vec::new();
    for _ in 0..kills {
        let seeds: Vec<u64> = (0..CLIENTS).map(|_| rng.random()).collect();
        let life = Duration::from_millis(rng.random_range(5..600));
        let address = server.address();
        let kept = thread::scope(|scope| {
            let clients: Vec<_> = seeds
                .iter()
                .map(|&seed| scope.spawn(move || push_until_it_dies(address, seed)))
                .collect();
            thread::sleep(life);
            server.kill();
            let kept = clients
                .into_iter()
                .flat_map(|client| client.join().expect("a client"));
            kept.collect::<Vec<_>>()
        });
        server.restart();
        for &(seed, size) in &kept {
            assert_blob(&server, "app", &noise(seed, size));
        }
        acknowledged.extend(kept);
    }
    tell(&format!(
        "{kills} kills, {} acknowledged blobs",
        acknowledged.len()
    ));
    assert!(!acknowledged.is_empty(), "nothing was pushed");
    for &(seed, size) in &acknowledged {
        assert_blob(&server, "app", &noise(seed, size));
    }
    // Sessions have expired by now or will in a moment; a restart looks after them at once.
    thread::sleep(Duration::from_secs(2));
    server.stop();
    server.restart();
    eventually("parts and fragments are gone", || {
        gateway.parts() == 0 && gateway.objects("f/").is_empty()
    });
    server.stop();
    let database = server.data_dir().join("registry.db");
    gateway.assert_accounted_for(|sql| {
        let sqlite = Tool::debian("sqlite3").arg("-readonly").arg(&database);
        sqlite.arg(sql).ok()
    });
}

fn push_until_it_dies(server: std::net::SocketAddr, seed: u64) -> Vec<(u64, usize)> {
    let mut kept = Vec::new();
    for round in 0.. {
        let seed = seed.wrapping_add(round);
        let size = SIZES[(seed % 4) as usize];
        match push(server, "app", &noise(seed, size), seed) {
            Some(()) => kept.push((seed, size)),
            None => break,
        }
    }
    kept
}

/// Nothing answers for ten seconds. Clients wait or are told to try again; none is told a lie.
#[test]
fn a_bucket_that_does_not_answer_loses_nothing() {
    let gateway = Gateway::start();
    let mut server = gateway.serve(&[]);
    let stop = AtomicBool::new(false);
    let kept = thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|client: u64| {
                let (address, stop) = (server.address(), &stop);
                scope.spawn(move || {
                    let mut kept = Vec::new();
                    for round in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let seed = client * 1_000_000 + round;
                        let size = SIZES[(seed % 4) as usize];
                        if push(address, "app", &noise(seed, size), seed).is_some() {
                            kept.push((seed, size, Instant::now()));
                        }
                    }
                    kept
                })
            })
            .collect();
        thread::sleep(Duration::from_secs(1));
        gateway.pause();
        // What needs no bucket goes on.
        server.request("GET", "/v2/").send().expect(200);
        thread::sleep(OUTAGE);
        gateway.resume();
        let resumed = Instant::now();
        thread::sleep(Duration::from_secs(3));
        stop.store(true, Ordering::Relaxed);
        let kept: Vec<_> = clients
            .into_iter()
            .flat_map(|client| client.join().expect("a client"))
            .collect();
        assert!(
            kept.iter().any(|(_, _, at)| *at > resumed),
            "nothing goes on after the outage"
        );
        kept
    });
    tell(&format!("{} blobs around an outage", kept.len()));
    for (seed, size, _) in kept {
        assert_blob(&server, "app", &noise(seed, size));
    }
    server.assert_healthy();
}

/// A multipart upload whose session the database has lost.
#[test]
fn orphaned_parts_are_aborted() {
    let gateway = Gateway::start();
    let mut server = gateway.serve(&[]);
    let location = open(&server, "app").location();
    let patch = server.request("PATCH", &location).body(noise(1, 20_000_000));
    let location = patch.send().expect(202).location();
    server
        .request("PATCH", &location)
        .body(noise(2, 10))
        .send()
        .expect(202);
    assert!(gateway.parts() > 0 && !gateway.objects("f/").is_empty());
    server.stop();
    Tool::debian("sqlite3")
        .arg(server.data_dir().join("registry.db"))
        .arg("DELETE FROM uploads")
        .ok();
    server.restart();
    eventually("the orphan is aborted", || {
        gateway.parts() == 0 && gateway.objects("f/").is_empty()
    });
}
