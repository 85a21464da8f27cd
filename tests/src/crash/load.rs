//! The load under which the server is killed: pushes in every form, pulls, mounts, tags, deletions.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use super::ledger::{Blob, Ledger, Question};
use crate::harness::http::{Request, Response};
use crate::harness::image::{Image, OCI_MANIFEST, sha256, with_digest};
use crate::harness::server::Server;

const CLIENTS: usize = 3;
const BLOB_BYTES_MAX: usize = 200_000;
const TAGS: u32 = 6;

/// How a server is made to suffer.
pub(super) struct Ordeal {
    /// How often it is killed.
    pub(super) instants: usize,
    /// How long it lives in between, at most.
    pub(super) life_ms_max: u64,
    /// Ledgers are put aside at this size, and checked once more at the end, so that rounds stay short.
    pub(super) ledger_size_max: usize,
}

impl Ordeal {
    /// Kills the server again and again; after each time everything that it acknowledged is there. How many changes
    /// it acknowledged. `between` runs while it is dead.
    pub(super) fn endure(&self, server: &mut Server, rng: &mut StdRng, between: impl Fn()) -> usize {
        let names = (0..CLIENTS).map(|client| format!("client{client}"));
        let mut ledgers: Vec<Ledger> = names.map(|name| Ledger::new(&name)).collect();
        let mut full = Vec::new();
        for instant in 0..self.instants {
            let life = Duration::from_micros(rng.random_range(1_000..self.life_ms_max * 1_000));
            let seeds: Vec<u64> = ledgers.iter().map(|_| rng.next_u64()).collect();
            thread::scope(|scope| {
                for (ledger, seed) in ledgers.iter_mut().zip(seeds) {
                    let client = Client::of(server.address(), ledger);
                    scope.spawn(move || client.work(ledger, &mut StdRng::seed_from_u64(seed)));
                }
                thread::sleep(life);
                server.kill();
            });
            between();
            server.restart();
            verify(server, &mut ledgers);
            for (client, ledger) in ledgers.iter_mut().enumerate() {
                if ledger.size() > self.ledger_size_max {
                    let next = Ledger::new(&format!("client{client}-{instant}"));
                    full.push(std::mem::replace(ledger, next));
                }
            }
        }
        ledgers.append(&mut full);
        verify(server, &mut ledgers);
        ledgers.iter().map(Ledger::acknowledged).sum()
    }
}

/// Several at a time.
fn verify(server: &Server, ledgers: &mut [Ledger]) {
    for some in ledgers.chunks_mut(CLIENTS) {
        thread::scope(|scope| {
            for ledger in some {
                scope.spawn(move || ledger.verify(server));
            }
        });
    }
}

/// Asks by plain requests; `None` once the server is gone.
struct Client {
    server: SocketAddr,
    repository: String,
    sister: String,
}

impl Client {
    fn of(server: SocketAddr, ledger: &Ledger) -> Self {
        Self {
            server,
            repository: ledger.repository.clone(),
            sister: ledger.sister(),
        }
    }

    fn work(&self, ledger: &mut Ledger, rng: &mut StdRng) {
        loop {
            let done = match rng.random_range(0..20) {
                0..3 => self.pull(ledger, rng),
                kind => self.change(kind, ledger, rng),
            };
            if done.is_none() {
                return;
            }
        }
    }

    /// One change, noted before it is asked for and when it is acknowledged.
    fn change(&self, kind: u32, ledger: &mut Ledger, rng: &mut StdRng) -> Option<()> {
        let question = match kind {
            3..5 => ledger.any_blob(rng).map(Question::Mount),
            5 => ledger.any_blob(rng).map(Question::DeleteBlob),
            6 => ledger.any_image(rng).map(|seed| Question::DeleteImage { seed }),
            7..9 => ledger.any_tag(rng).map(|tag| Question::Untag { tag }),
            9..14 => None,
            _ => {
                let (tag, seed) = (format!("t{}", rng.random_range(0..TAGS)), rng.next_u64());
                Some(Question::Tag { tag, seed })
            }
        };
        let blob = Blob {
            seed: rng.next_u64(),
            length: rng.random_range(0..BLOB_BYTES_MAX),
        };
        let question = question.unwrap_or(Question::Push(blob));
        if let Question::Tag { seed, .. } = &question {
            for blob in Image::small(*seed).blobs {
                self.push(&blob, 0)?;
            }
        }
        ledger.ask(question.clone());
        self.ask(&question, rng.random_range(0..3))?;
        ledger.acknowledge();
        Some(())
    }

    fn ask(&self, question: &Question, way: u32) -> Option<()> {
        let digest = |blob: &Blob| sha256(&blob.bytes());
        match question {
            Question::Push(blob) => self.push(&blob.bytes(), way),
            Question::Mount(blob) => {
                let (digest, from) = (digest(blob), &self.repository);
                let target = format!("/v2/{}/blobs/uploads/?mount={digest}&from={from}", self.sister);
                self.done(self.request("POST", &target), &[201])
            }
            Question::DeleteBlob(blob) => self.delete(&format!("blobs/{}", digest(blob))),
            Question::Tag { tag, seed } => {
                let put = self.request("PUT", &format!("/v2/{}/manifests/{tag}", self.repository));
                let put = put
                    .header("Content-Type", OCI_MANIFEST)
                    .body(Image::small(*seed).manifest);
                self.done(put, &[201])
            }
            Question::Untag { tag } => self.delete(&format!("manifests/{tag}")),
            Question::DeleteImage { seed } => {
                self.delete(&format!("manifests/{}", Image::small(*seed).digest()))
            }
        }
    }

    /// Reads something that is there; what comes is whole and right.
    fn pull(&self, ledger: &Ledger, rng: &mut StdRng) -> Option<()> {
        if let Some(blob) = ledger.any_blob(rng) {
            let bytes = blob.bytes();
            let target = format!("/v2/{}/blobs/{}", self.repository, sha256(&bytes));
            let got = self.answered(self.request("GET", &target), &[200])?;
            assert!(got.body == bytes, "a damaged blob");
        }
        if let Some(seed) = ledger.any_image(rng) {
            let image = Image::small(seed);
            let target = format!("/v2/{}/manifests/{}", self.repository, image.digest());
            let got = self.answered(self.request("GET", &target), &[200])?;
            assert!(got.body == image.manifest, "another manifest");
        }
        Some(())
    }

    fn push(&self, bytes: &[u8], way: u32) -> Option<()> {
        let digest = sha256(bytes);
        let uploads = format!("/v2/{}/blobs/uploads/", self.repository);
        if way == 0 {
            let post = self.request("POST", &format!("{uploads}?digest={digest}"));
            let post = post.header("Content-Type", "application/octet-stream");
            return self.done(post.body(bytes), &[201]);
        }
        let opened = self.answered(self.request("POST", &uploads), &[202])?;
        let mut location = opened.location();
        let mut rest = bytes;
        if way == 2 {
            let chunks = bytes.chunks(30_000).map(<[u8]>::to_vec);
            let patch = self.request("PATCH", &location).chunked(chunks);
            location = self.answered(patch, &[202])?.location();
            rest = b"";
        }
        let put = self.request("PUT", &with_digest(&location, &digest));
        self.done(put.body(rest), &[201])
    }

    fn delete(&self, what: &str) -> Option<()> {
        let delete = self.request("DELETE", &format!("/v2/{}/{what}", self.repository));
        // 404: it was deleted before.
        self.done(delete, &[202, 404])
    }

    fn request(&self, method: &str, target: &str) -> Request {
        Request::new(method, self.server, target)
    }

    fn done(&self, request: Request, good: &[u16]) -> Option<()> {
        self.answered(request, good).map(drop)
    }

    fn answered(&self, request: Request, good: &[u16]) -> Option<Response> {
        let answer = request.try_send().ok()?;
        let shown = format!("{}: {} {}", self.repository, answer.status, answer.text());
        assert!(good.contains(&answer.status), "{shown}");
        Some(answer)
    }
}
