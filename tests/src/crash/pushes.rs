//! Kill -9 in the middle of pushes.

use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use super::ledger::{Ledger, Question};
use super::seeded;
use crate::harness::image::{Image, OCI_MANIFEST, noise, sha256, with_digest};
use crate::harness::server::Server;
use crate::harness::tell;
use crate::harness::tool::Tool;

/// With those of `builds.rs` more than 200.
const INSTANTS: usize = 180;
const CLIENTS: usize = 3;
const LIFE_MS_MAX: u64 = 120;
const BLOB_BYTES_MAX: usize = 200_000;
/// Ledgers are put aside at this size, and checked once more at the end, so that rounds stay short.
const LEDGER_MAX: usize = 40;

#[test]
fn nothing_acknowledged_is_lost_and_nothing_half_visible() {
    let mut rng = seeded("crash::pushes");
    let mut server = Server::start();
    let mut ledgers: Vec<Ledger> = (0..CLIENTS)
        .map(|client| Ledger::new(&format!("client{client}")))
        .collect();
    let mut full = Vec::new();
    for instant in 0..INSTANTS {
        let life = Duration::from_micros(rng.random_range(1_000..LIFE_MS_MAX * 1_000));
        let seeds: Vec<u64> = ledgers.iter().map(|_| rng.next_u64()).collect();
        thread::scope(|scope| {
            for (ledger, seed) in ledgers.iter_mut().zip(seeds) {
                let server = server.address();
                scope.spawn(move || push_until_it_dies(server, ledger, StdRng::seed_from_u64(seed)));
            }
            thread::sleep(life);
            server.kill();
        });
        server.restart();
        for (client, ledger) in ledgers.iter_mut().enumerate() {
            ledger.verify(&server);
            if ledger.acknowledged() > LEDGER_MAX {
                let next = Ledger::new(&format!("client{client}-{instant}"));
                full.push(std::mem::replace(ledger, next));
            }
        }
    }
    let acknowledged: usize = ledgers.iter().chain(&full).map(Ledger::acknowledged).sum();
    tell(&format!(
        "{INSTANTS} kills, {acknowledged} acknowledged blobs and manifests"
    ));
    assert!(
        acknowledged > INSTANTS / 4,
        "hardly anything was pushed: {acknowledged}"
    );
    ledgers
        .iter_mut()
        .chain(&mut full)
        .for_each(|ledger| ledger.verify(&server));
    server.assert_healthy();
    server.stop();
    assert_accounted_for(&server);
}

fn push_until_it_dies(server: std::net::SocketAddr, ledger: &mut Ledger, mut rng: StdRng) {
    let client = Client {
        server,
        repository: ledger.repository.clone(),
    };
    loop {
        let done = match rng.random_range(0..10) {
            0..4 => {
                let (seed, length) = (rng.next_u64(), rng.random_range(0..BLOB_BYTES_MAX));
                ledger.ask(Question::Blob { seed, length });
                client.push_blob(&noise(seed, length), rng.random_range(0..3))
            }
            4 if !ledger.tags().is_empty() => {
                let tags = ledger.tags();
                let tag = tags[rng.random_range(0..tags.len())].clone();
                ledger.ask(Question::Delete { tag: tag.clone() });
                client.delete(&tag)
            }
            _ => {
                let (tag, seed) = (format!("t{}", rng.random_range(0..6)), rng.next_u64());
                let image = Image::small(seed);
                let blobs = image.blobs.iter().all(|blob| client.push_blob(blob, 0).is_some());
                ledger.ask(Question::Tag {
                    tag: tag.clone(),
                    seed,
                });
                blobs.then(|| client.tag(&image, &tag)).flatten()
            }
        };
        match done {
            Some(()) => ledger.acknowledge(),
            None => return,
        }
    }
}

/// Pushes by plain requests; `None` once the server is gone.
struct Client {
    server: std::net::SocketAddr,
    repository: String,
}

impl Client {
    fn request(&self, method: &str, target: &str) -> crate::harness::http::Request {
        crate::harness::http::Request::new(method, self.server, target)
    }

    fn push_blob(&self, bytes: &[u8], way: u32) -> Option<()> {
        let digest = sha256(bytes);
        let uploads = format!("/v2/{}/blobs/uploads/", self.repository);
        if way == 0 {
            let post = self.request("POST", &format!("{uploads}?digest={digest}"));
            let post = post
                .header("Content-Type", "application/octet-stream")
                .body(bytes);
            return self.done(post.try_send(), &[201]);
        }
        let mut location = self
            .request("POST", &uploads)
            .try_send()
            .ok()?
            .expect(202)
            .location();
        if way == 2 {
            let chunks = bytes.chunks(30_000).map(<[u8]>::to_vec);
            location = self
                .request("PATCH", &location)
                .chunked(chunks)
                .try_send()
                .ok()?
                .expect(202)
                .location();
            return self.done(
                self.request("PUT", &with_digest(&location, &digest)).try_send(),
                &[201],
            );
        }
        self.done(
            self.request("PUT", &with_digest(&location, &digest))
                .body(bytes)
                .try_send(),
            &[201],
        )
    }

    fn tag(&self, image: &Image, tag: &str) -> Option<()> {
        let put = self.request("PUT", &format!("/v2/{}/manifests/{tag}", self.repository));
        self.done(
            put.header("Content-Type", OCI_MANIFEST)
                .body(image.manifest.clone())
                .try_send(),
            &[201],
        )
    }

    fn delete(&self, tag: &str) -> Option<()> {
        let delete = self.request("DELETE", &format!("/v2/{}/manifests/{tag}", self.repository));
        // 404: it was deleted before.
        self.done(delete.try_send(), &[202, 404])
    }

    fn done(&self, answer: anyhow::Result<crate::harness::http::Response>, good: &[u16]) -> Option<()> {
        let answer = answer.ok()?;
        assert!(
            good.contains(&answer.status),
            "{}: {} {}",
            self.repository,
            answer.status,
            answer.text()
        );
        Some(())
    }
}

/// Every file of the store has a row that will keep it or have it deleted, every kept row has its file, and the
/// database is sound.
pub(super) fn assert_accounted_for(server: &Server) {
    let database = server.data_dir().join("registry.db");
    let query = |sql: &str| {
        Tool::debian("sqlite3")
            .arg("-readonly")
            .arg(&database)
            .arg(sql)
            .ok()
    };
    assert_eq!(query("PRAGMA integrity_check"), "ok");
    assert_eq!(query("PRAGMA foreign_key_check"), "");

    let named = query(
        "SELECT storage_key FROM blobs UNION SELECT key FROM doomed UNION SELECT key FROM uploads WHERE key IS NOT NULL",
    );
    let named: std::collections::BTreeSet<&str> = named.lines().collect();
    let live = query("SELECT storage_key FROM blobs");
    let on_disk = files_below(&server.data_dir(), "blobs");
    for key in live.lines() {
        assert!(
            on_disk.contains(key),
            "{key} is in the database and not in the store"
        );
    }
    for key in &on_disk {
        assert!(
            named.contains(key.as_str()),
            "{key} lies in the store and nobody knows it"
        );
    }
    let sessions = query("SELECT lower(hex(id)) FROM uploads");
    let sessions: std::collections::BTreeSet<&str> = sessions.lines().collect();
    for file in files_below(&server.data_dir(), "uploads") {
        let id = file.trim_start_matches("uploads/").replace('-', "");
        assert!(sessions.contains(id.as_str()), "{file} belongs to no session");
    }
}

/// Names relative to the data directory.
fn files_below(data_dir: &std::path::Path, dir: &str) -> std::collections::BTreeSet<String> {
    let entries = walkdir::WalkDir::new(data_dir.join(dir))
        .into_iter()
        .map(|entry| entry.expect("walk the store"));
    let files = entries.filter(|entry| entry.file_type().is_file());
    let relative = files.map(|file| file.path().strip_prefix(data_dir).expect("below").to_owned());
    relative
        .map(|path| path.to_str().expect("a name in UTF-8").to_owned())
        .collect()
}
