//! What the server acknowledged, and what it was asked when it died.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::StdRng;

use crate::harness::image::{Image, noise, sha256};
use crate::harness::server::Server;

/// One client's view of its own repository, and of a second one that it mounts blobs into.
pub(super) struct Ledger {
    pub(super) repository: String,
    blobs: Blobs,
    mounted: Blobs,
    /// Digest → seed of images whose manifest was acknowledged.
    images: BTreeMap<String, u64>,
    /// Tag → digest, `None` after an acknowledged deletion.
    tags: BTreeMap<String, Option<String>>,
    /// What was asked last and not answered.
    open: Option<Question>,
    acknowledged: usize,
}

/// Digest → what its bytes are.
type Blobs = BTreeMap<String, Blob>;

#[derive(Clone, Copy)]
pub(super) struct Blob {
    pub(super) seed: u64,
    pub(super) length: usize,
}

#[derive(Clone)]
pub(super) enum Question {
    Push(Blob),
    Mount(Blob),
    DeleteBlob(Blob),
    Tag { tag: String, seed: u64 },
    Untag { tag: String },
    DeleteImage { seed: u64 },
}

impl Blob {
    pub(super) fn bytes(self) -> Vec<u8> {
        noise(self.seed, self.length)
    }
}

impl Ledger {
    pub(super) fn new(repository: &str) -> Self {
        Self {
            repository: repository.to_owned(),
            blobs: Blobs::new(),
            mounted: Blobs::new(),
            images: BTreeMap::new(),
            tags: BTreeMap::new(),
            open: None,
            acknowledged: 0,
        }
    }

    /// Where blobs are mounted.
    pub(super) fn sister(&self) -> String {
        format!("{}/mounted", self.repository)
    }

    pub(super) fn ask(&mut self, question: Question) {
        self.open = Some(question);
    }

    /// The last question was answered with success.
    pub(super) fn acknowledge(&mut self) {
        let question = self.open.take().expect("an answer has a question");
        self.acknowledged += 1;
        match question {
            Question::Push(blob) => {
                self.blobs.insert(sha256(&blob.bytes()), blob);
            }
            Question::Mount(blob) => {
                self.mounted.insert(sha256(&blob.bytes()), blob);
            }
            Question::DeleteBlob(blob) => {
                self.blobs.remove(&sha256(&blob.bytes()));
            }
            Question::Tag { tag, seed } => {
                let digest = Image::small(seed).digest();
                self.images.insert(digest.clone(), seed);
                self.tags.insert(tag, Some(digest));
            }
            Question::Untag { tag } => {
                self.tags.insert(tag, None);
            }
            Question::DeleteImage { seed } => self.forget(&Image::small(seed).digest()),
        }
    }

    /// How many changes were acknowledged.
    pub(super) fn acknowledged(&self) -> usize {
        self.acknowledged
    }

    /// How many objects have to be looked at.
    pub(super) fn size(&self) -> usize {
        self.blobs.len() + self.mounted.len() + self.images.len()
    }

    pub(super) fn any_blob(&self, rng: &mut StdRng) -> Option<Blob> {
        any(&self.blobs, rng).map(|(_, &blob)| blob)
    }

    pub(super) fn any_image(&self, rng: &mut StdRng) -> Option<u64> {
        any(&self.images, rng).map(|(_, &seed)| seed)
    }

    pub(super) fn any_tag(&self, rng: &mut StdRng) -> Option<String> {
        any(&self.tags, rng).map(|(tag, _)| tag.clone())
    }

    /// A deleted manifest takes its tags along.
    fn forget(&mut self, digest: &str) {
        self.images.remove(digest);
        for named in self.tags.values_mut() {
            if named.as_deref() == Some(digest) {
                *named = None;
            }
        }
    }

    /// Checks everything against the restarted server, and settles what was open.
    #[track_caller]
    pub(super) fn verify(&mut self, server: &Server) {
        if let Some(question) = self.open.take() {
            self.settle(server, &question);
        }
        let sister = self.sister();
        for (repository, blobs) in [(&self.repository, &self.blobs), (&sister, &self.mounted)] {
            for (digest, blob) in blobs {
                let is_there = has_blob(server, repository, *blob);
                assert!(is_there, "{repository} has lost the blob {digest}");
            }
        }
        for (digest, &seed) in &self.images {
            Image::small(seed).assert_on(server, &self.repository, digest);
        }
        for (tag, digest) in &self.tags {
            let now = self.named_by(server, tag);
            assert_eq!(now, *digest, "the tag {tag} in {}", self.repository);
        }
        self.verify_list(server);
    }

    /// What was asked and not answered has happened or not, and nothing between.
    fn settle(&mut self, server: &Server, question: &Question) {
        match question {
            Question::Push(blob) => {
                has_blob(server, &self.repository, *blob);
            }
            Question::Mount(blob) => {
                has_blob(server, &self.sister(), *blob);
            }
            Question::DeleteBlob(blob) => {
                if !has_blob(server, &self.repository, *blob) {
                    self.blobs.remove(&sha256(&blob.bytes()));
                }
            }
            Question::Tag { tag, seed } => self.settle_tag(server, tag, Some(*seed)),
            Question::Untag { tag } => self.settle_tag(server, tag, None),
            Question::DeleteImage { seed } => {
                let digest = Image::small(*seed).digest();
                if self.named_by(server, &digest).is_none() {
                    self.forget(&digest);
                }
            }
        }
    }

    fn settle_tag(&mut self, server: &Server, tag: &str, asked: Option<u64>) {
        let old = self.tags.get(tag).cloned().flatten();
        let asked_digest = asked.map(|seed| Image::small(seed).digest());
        let now = self.named_by(server, tag);
        assert!(
            now == old || now == asked_digest,
            "{tag} is {now:?}, was {old:?}, asked {asked_digest:?}"
        );
        if let (Some(seed), Some(digest)) = (asked, &now)
            && asked_digest.as_ref() == Some(digest)
        {
            self.images.insert(digest.clone(), seed);
        }
        if self.tags.contains_key(tag) || now.is_some() {
            self.tags.insert(tag.to_owned(), now);
        }
    }

    /// The manifest under a tag or digest.
    fn named_by(&self, server: &Server, reference: &str) -> Option<String> {
        let target = format!("/v2/{}/manifests/{reference}", self.repository);
        let head = server.request("HEAD", &target).send();
        if head.status == 404 {
            return None;
        }
        let head = head.expect(200);
        Some(head.header("docker-content-digest").expect("a digest").to_owned())
    }

    fn verify_list(&self, server: &Server) {
        let list = server
            .request("GET", &format!("/v2/{}/tags/list", self.repository))
            .send();
        let listed: Vec<String> = match list.status {
            404 => Vec::new(),
            _ => serde_json::from_value(list.expect(200).json()["tags"].clone()).expect("a list of tags"),
        };
        let named = self.tags.iter().filter(|(_, digest)| digest.is_some());
        let expected: Vec<&String> = named.map(|(tag, _)| tag).collect();
        assert_eq!(
            listed.iter().collect::<Vec<_>>(),
            expected,
            "the list of {}",
            self.repository
        );
    }
}

/// Whether a blob is there, and then whole.
fn has_blob(server: &Server, repository: &str, blob: Blob) -> bool {
    let bytes = blob.bytes();
    let target = format!("/v2/{repository}/blobs/{}", sha256(&bytes));
    let got = server.request("GET", &target).send();
    if got.status == 404 {
        return false;
    }
    assert!(
        got.expect(200).body == bytes,
        "{repository} has a damaged {}",
        sha256(&bytes)
    );
    true
}

fn any<'a, K, V>(of: &'a BTreeMap<K, V>, rng: &mut StdRng) -> Option<(&'a K, &'a V)> {
    let index = rng.random_range(0..of.len().max(1));
    of.iter().nth(index)
}
