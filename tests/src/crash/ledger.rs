//! What the server acknowledged, and what it was asked when it died.

use std::collections::BTreeMap;

use crate::harness::image::{Image, noise, sha256};
use crate::harness::server::Server;

/// One client's view of its own repository.
pub(super) struct Ledger {
    pub(super) repository: String,
    /// Digest → (seed, length) of its bytes.
    blobs: BTreeMap<String, (u64, usize)>,
    /// Seeds of images whose manifest was acknowledged.
    images: BTreeMap<String, u64>,
    /// Tag → digest, `None` after an acknowledged deletion.
    tags: BTreeMap<String, Option<String>>,
    /// What was asked last and not answered.
    open: Option<Question>,
}

pub(super) enum Question {
    Blob { seed: u64, length: usize },
    Tag { tag: String, seed: u64 },
    Delete { tag: String },
}

impl Ledger {
    pub(super) fn new(repository: &str) -> Self {
        Self {
            repository: repository.to_owned(),
            blobs: BTreeMap::new(),
            images: BTreeMap::new(),
            tags: BTreeMap::new(),
            open: None,
        }
    }

    pub(super) fn ask(&mut self, question: Question) {
        self.open = Some(question);
    }

    /// The last question was answered with success.
    pub(super) fn acknowledge(&mut self) {
        match self.open.take() {
            Some(Question::Blob { seed, length }) => {
                self.blobs.insert(sha256(&noise(seed, length)), (seed, length));
            }
            Some(Question::Tag { tag, seed }) => {
                let digest = Image::small(seed).digest();
                self.images.insert(digest.clone(), seed);
                self.tags.insert(tag, Some(digest));
            }
            Some(Question::Delete { tag }) => {
                self.tags.insert(tag, None);
            }
            None => panic!("an answer without a question"),
        }
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.blobs.len() + self.images.len()
    }

    pub(super) fn tags(&self) -> Vec<String> {
        self.tags.keys().cloned().collect()
    }

    /// Checks everything against the restarted server, and settles what was open.
    #[track_caller]
    pub(super) fn verify(&mut self, server: &Server) {
        let mut expected = self.tags.clone();
        match self.open.take() {
            Some(Question::Blob { seed, length }) => self.verify_maybe_blob(server, seed, length),
            Some(Question::Tag { tag, seed }) => {
                if let Some(digest) = self.settle_tag(server, &tag, Some(seed)) {
                    expected.insert(tag, digest);
                }
            }
            Some(Question::Delete { tag }) => {
                if let Some(digest) = self.settle_tag(server, &tag, None) {
                    expected.insert(tag, digest);
                }
            }
            None => {}
        }
        self.tags = expected;
        for (digest, &(seed, length)) in &self.blobs {
            self.verify_blob(server, digest, &noise(seed, length));
        }
        for (digest, &seed) in &self.images {
            Image::small(seed).assert_on(server, &self.repository, digest);
        }
        for (tag, digest) in &self.tags {
            assert_eq!(
                self.tag_on(server, tag),
                *digest,
                "the tag {tag} in {}",
                self.repository
            );
        }
        self.verify_list(server);
    }

    fn verify_blob(&self, server: &Server, digest: &str, bytes: &[u8]) {
        let got = server
            .request("GET", &format!("/v2/{}/blobs/{digest}", self.repository))
            .send()
            .expect(200);
        assert!(got.body == bytes, "the blob {digest} is damaged");
    }

    fn verify_maybe_blob(&self, server: &Server, seed: u64, length: usize) {
        let bytes = noise(seed, length);
        let got = server
            .request(
                "GET",
                &format!("/v2/{}/blobs/{}", self.repository, sha256(&bytes)),
            )
            .send();
        assert!(
            got.status == 404 || (got.status == 200 && got.body == bytes),
            "half a blob: {}",
            got.status
        );
    }

    /// The state of a tag whose change was not answered: the old one or the new one, nothing between.
    fn settle_tag(&mut self, server: &Server, tag: &str, asked: Option<u64>) -> Option<Option<String>> {
        let old = self.tags.get(tag).cloned().flatten();
        let asked_digest = asked.map(|seed| Image::small(seed).digest());
        let now = self.tag_on(server, tag);
        assert!(
            now == old || now == asked_digest,
            "{tag} is {now:?}, was {old:?}, asked {asked_digest:?}"
        );
        if let (Some(seed), Some(digest)) = (asked, &now)
            && asked_digest.as_ref() == Some(digest)
        {
            self.images.insert(digest.clone(), seed);
        }
        (self.tags.contains_key(tag) || now.is_some()).then_some(now)
    }

    fn tag_on(&self, server: &Server, tag: &str) -> Option<String> {
        let head = server
            .request("HEAD", &format!("/v2/{}/manifests/{tag}", self.repository))
            .send();
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
        let expected: Vec<&String> = self
            .tags
            .iter()
            .filter(|(_, digest)| digest.is_some())
            .map(|(tag, _)| tag)
            .collect();
        assert_eq!(
            listed.iter().collect::<Vec<_>>(),
            expected,
            "the list of {}",
            self.repository
        );
    }
}
