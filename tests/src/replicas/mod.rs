//! Three replicas over one PostgreSQL and one bucket, behind nginx.

mod contest;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::conformance;
use crate::harness::balancer::Balancer;
use crate::harness::http::Request;
use crate::harness::image::{Image, noise, sha256, with_digest};
use crate::harness::postgres::Postgres;
use crate::harness::s3::Gateway;
use crate::harness::server::Server;
use crate::harness::tool::Tool;

/// Everything, in the order in which it ends.
struct Cluster {
    balancer: Balancer,
    replicas: Vec<Server>,
    postgres: Postgres,
    _gateway: Gateway,
}

impl Cluster {
    fn start() -> Self {
        let postgres = Postgres::start();
        let gateway = Gateway::start();
        let setting = postgres.setting();
        let replicas: Vec<Server> = (0..3).map(|_| gateway.serve(&[&setting])).collect();
        let addresses: Vec<SocketAddr> = replicas.iter().map(Server::address).collect();
        Self {
            balancer: Balancer::start(&addresses),
            replicas,
            postgres,
            _gateway: gateway,
        }
    }

    fn host(&self) -> String {
        self.balancer.address().to_string()
    }

    fn assert_healthy(&mut self) {
        for replica in &mut self.replicas {
            replica.assert_healthy();
        }
    }
}

#[test]
fn the_conformance_suite_passes_through_the_balancer() {
    let mut cluster = Cluster::start();
    let counts = conformance::run_suite_at(&cluster.host(), &[("OCI_VERSION", "1.1")]);
    counts.assert_clean();
    cluster.assert_healthy();
}

/// The session and the state of its hash lie in the database, its bytes in the bucket.
#[test]
fn an_upload_goes_on_at_any_replica() {
    let mut cluster = Cluster::start();
    let bytes = noise(31, 300_000);
    let digest = sha256(&bytes);
    let at = |replica: usize| cluster.replicas[replica].address();
    let mut location = Request::new("POST", at(0), "/v2/moving/app/blobs/uploads/")
        .send()
        .expect(202)
        .location();
    for (replica, range) in [(1, 0..100_000), (2, 100_000..200_000), (0, 200_000..300_000)] {
        location = Request::new("PATCH", at(replica), &location)
            .header("Content-Type", "application/octet-stream")
            .header("Content-Range", format!("{}-{}", range.start, range.end - 1))
            .body(&bytes[range])
            .send()
            .expect(202)
            .location();
    }
    Request::new("PUT", at(1), &with_digest(&location, &digest))
        .send()
        .expect(201);
    for replica in 0..3 {
        let target = format!("/v2/moving/app/blobs/{digest}");
        let found = Request::new("GET", at(replica), &target).send().expect(200);
        assert!(found.body == bytes, "replica {replica}");
    }
    cluster.assert_healthy();
}

#[test]
fn a_moved_tag_is_seen_by_every_replica_at_once() {
    let mut cluster = Cluster::start();
    for seed in 0..10 {
        let image = Image::small(seed);
        let pusher = usize::try_from(seed).expect("small") % 3;
        image.push(&cluster.replicas[pusher], "moved/app", "latest");
        for replica in &cluster.replicas {
            image.assert_on(replica, "moved/app", "latest");
        }
    }
    cluster.assert_healthy();
}

/// Real clients push and pull through the balancer while a replica is killed and the database restarts. A command may
/// fail then, as it does when a network breaks; what succeeded is there, whole, on every replica.
#[test]
fn nothing_acknowledged_is_lost_with_a_replica() {
    let mut cluster = Cluster::start();
    let host = cluster.host();
    let over = AtomicBool::new(false);
    let pushed = thread::scope(|scope| {
        let pushers: Vec<_> = (0..2_u64)
            .map(|pusher| {
                let (host, over) = (&host, &over);
                scope.spawn(move || push_until(over, host, pusher))
            })
            .collect();
        thread::sleep(PHASE);
        cluster.replicas[0].kill();
        thread::sleep(PHASE);
        cluster.replicas[0].restart();
        cluster.postgres.restart();
        thread::sleep(PHASE);
        over.store(true, Ordering::SeqCst);
        let pushed = pushers.into_iter().map(|pusher| pusher.join().expect("a pusher"));
        pushed.collect::<Vec<_>>()
    });
    for pushed in pushed {
        assert!(pushed.images.len() >= 3, "only {} pushes", pushed.images.len());
        assert!(pushed.failures <= 4, "{} commands failed", pushed.failures);
        for (image, repository, tag) in &pushed.images {
            for replica in &cluster.replicas {
                image.assert_on(replica, repository, tag);
            }
        }
    }
    cluster.assert_healthy();
}

const PHASE: Duration = Duration::from_secs(4);
/// A client that hangs this long has not noticed that its server is gone.
const COMMAND_SECONDS_MAX: u64 = 60;

struct Pushed {
    images: Vec<(Image, String, String)>,
    failures: u32,
}

/// Pushes with crane, copies with skopeo (a pull and a push).
fn push_until(over: &AtomicBool, host: &str, pusher: u64) -> Pushed {
    let scratch = crate::harness::paths::scratch();
    let mut pushed = Pushed {
        images: Vec::new(),
        failures: 0,
    };
    for round in 0.. {
        if over.load(Ordering::SeqCst) {
            break;
        }
        let image = Image::small(1000 * (pusher + 1) + round);
        let layout = scratch.path().join(format!("{round}"));
        image.write_layout(&layout, "v1");
        let (repository, tag) = (format!("killed/{pusher}"), format!("t{round}"));
        let name = format!("{host}/{repository}:{tag}");
        let crane = Tool::peer("crane", "clients")
            .env("DOCKER_CONFIG", scratch.path())
            .arg("push")
            .arg(&layout)
            .arg(&name);
        if !succeeds(crane, &mut pushed.failures) {
            continue;
        }
        let copy = format!("docker://{host}/killed/copies:{pusher}-{round}");
        let skopeo = Tool::debian("skopeo")
            .args([
                "--insecure-policy",
                "copy",
                "--src-tls-verify=false",
                "--dest-tls-verify=false",
            ])
            .args([&format!("docker://{name}"), &copy]);
        let copied = succeeds(skopeo, &mut pushed.failures);
        if copied {
            let copy = (
                Image::small(1000 * (pusher + 1) + round),
                "killed/copies".to_owned(),
            );
            pushed.images.push((copy.0, copy.1, format!("{pusher}-{round}")));
        }
        pushed.images.push((image, repository, tag));
    }
    pushed
}

fn succeeds(tool: Tool, failures: &mut u32) -> bool {
    let begun = Instant::now();
    let ran = tool.run();
    assert!(
        begun.elapsed() < Duration::from_secs(COMMAND_SECONDS_MAX),
        "it took {:?}: {ran}",
        begun.elapsed()
    );
    *failures += u32::from(ran.code != Some(0));
    ran.code == Some(0)
}
