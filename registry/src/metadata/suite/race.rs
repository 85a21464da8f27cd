//! Collection against everything at once: pushes, mounts, deletions, restorations, look-ups. At the end nothing that
//! lives lacks anything, nothing is forgotten, and after the last deletion every byte has been let go.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::collection::{explained, review};
use super::*;
use crate::config::Limits;
use crate::metadata::collection::{Cursor, Explain, Explained, Fate, Undelete};

const REPOSITORIES: usize = 4;
const IMAGES: usize = 12;
const LAYERS: usize = 9;
const TAGS: usize = 6;
/// No call takes longer, whatever the others do.
const CALL_TIME_MAX: Duration = Duration::from_secs(20);

/// A grace so short that everything goes while somebody wants it.
pub(crate) fn limits(grace: Duration) -> Limits {
    Limits {
        undelete_window: grace,
        review_delay: grace,
        delete_delay: Duration::ZERO,
        ..Limits::default()
    }
}

/// Seconds by default, minutes where somebody has the time.
pub(crate) fn duration() -> Duration {
    match std::env::var_os("LAYERYARD_LONG") {
        Some(_) => Duration::from_secs(300),
        None => Duration::from_secs(10),
    }
}

struct Race {
    store: Arc<dyn MetadataStore>,
    over: AtomicBool,
    /// Names under which bytes were stored, and those whose bytes are deleted.
    stored: Mutex<BTreeSet<String>>,
    deleted: Mutex<BTreeSet<String>>,
    pushed: AtomicU64,
    purged: AtomicU64,
    restored: AtomicU64,
}

pub(crate) async fn run(store: Arc<dyn MetadataStore>, duration: Duration) {
    let race = Arc::new(Race {
        store,
        over: AtomicBool::new(false),
        stored: Mutex::default(),
        deleted: Mutex::default(),
        pushed: AtomicU64::new(0),
        purged: AtomicU64::new(0),
        restored: AtomicU64::new(0),
    });
    let mut tasks = Vec::new();
    for _ in 0..6 {
        tasks.push(spawn(&race, |race| Box::pin(race.push())));
    }
    for _ in 0..3 {
        tasks.push(spawn(&race, |race| Box::pin(race.disturb())));
    }
    for _ in 0..2 {
        tasks.push(spawn(&race, |race| Box::pin(race.collect())));
    }
    tokio::time::sleep(duration).await;
    race.over.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.unwrap();
    }
    let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    assert!(count(&race.pushed) > 20, "{} pushes", count(&race.pushed));
    assert!(count(&race.purged) > 0, "nothing was collected");
    assert!(count(&race.restored) > 0, "nothing was restored");
    race.check_survivors().await;
    race.delete_all().await;
}

fn spawn<F>(race: &Arc<Race>, work: F) -> tokio::task::JoinHandle<()>
where
    F: for<'r> Fn(&'r Race) -> BoxFuture<'r, ()> + Send + Sync + 'static,
{
    let race = Arc::clone(race);
    tokio::spawn(async move {
        while !race.over.load(Ordering::SeqCst) {
            tokio::time::timeout(CALL_TIME_MAX, work(&race))
                .await
                .expect("a call hangs: a deadlock");
        }
    })
}

fn any(count: usize) -> usize {
    rand::random_range(0..count)
}

fn repository(number: usize) -> RepoName {
    repo(&format!("race/{number}"))
}

fn layers(image: usize) -> [String; 2] {
    let layer = |number: usize| format!("race layer {}", number % LAYERS);
    [layer(image), layer(image * 2 + 1)]
}

fn image(here: &RepoName, number: usize) -> PutManifest {
    let mut put = manifest(here, &format!("race image {number}"));
    let blobs: BTreeSet<Digest> = layers(number)
        .iter()
        .map(|layer| Digest::sha256(layer.as_bytes()))
        .collect();
    put.blobs = blobs.into_iter().collect();
    put
}

impl Race {
    /// An image, or an index of two, as a client pushes it: what is missing is sent again.
    async fn push(&self) {
        let here = repository(any(REPOSITORIES));
        let number = any(IMAGES);
        let mut wanted = vec![image(&here, number)];
        if any(3) == 0 {
            let other = image(&here, (number + 1) % IMAGES);
            let mut list = manifest(&here, &format!("race index {number}"));
            list.children = vec![wanted[0].digest, other.digest];
            wanted.extend([other, list]);
        }
        if let Some(last) = wanted.last_mut() {
            last.tags = vec![tag(&format!("t{}", any(TAGS)))];
        }
        for _ in 0..50 {
            if self.push_once(&here, number, &wanted).await {
                self.pushed.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        panic!("a push never got through");
    }

    async fn push_once(&self, here: &RepoName, number: usize, wanted: &[PutManifest]) -> bool {
        for layer in layers(number).iter().chain(&layers((number + 1) % IMAGES)) {
            self.send(here, layer).await;
        }
        for put in wanted {
            if self.store.put_manifest(put.clone()).await.unwrap() != PutOutcome::Stored {
                return false;
            }
        }
        true
    }

    async fn send(&self, here: &RepoName, content: &str) {
        let digest = Digest::sha256(content.as_bytes());
        if self.store.find_blob(here, &digest).await.unwrap().is_some() {
            return;
        }
        let there = repository(any(REPOSITORIES));
        if any(2) == 0 && self.store.mount_blob(here, &there, &digest).await.unwrap() {
            return;
        }
        {
            let key = new_key(&digest);
            let (upload, stored) = session(&*self.store, here, closing(digest, &key)).await;
            let commit = CommitBlob {
                upload,
                epoch: 1,
                repository: here.clone(),
                digest,
                size: content.len() as u64,
                key: (!stored).then(|| key.clone()),
            };
            match self.store.commit_blob(commit.clone()).await.unwrap() {
                CommitOutcome::Committed => {}
                // It went between the look and the commit: the bytes have to be stored after all.
                CommitOutcome::NotStored => {
                    let with_bytes = CommitBlob {
                        key: Some(key.clone()),
                        ..commit
                    };
                    let outcome = self.store.commit_blob(with_bytes).await.unwrap();
                    assert_eq!(outcome, CommitOutcome::Committed);
                    self.stored.lock().insert(key.as_str().to_owned());
                    return;
                }
                outcome => panic!("{outcome:?}"),
            }
            if !stored {
                self.stored.lock().insert(key.as_str().to_owned());
            }
        }
    }

    async fn disturb(&self) {
        let here = repository(any(REPOSITORIES));
        let tag = tag(&format!("t{}", any(TAGS)));
        let digest = image(&here, any(IMAGES)).digest;
        match any(6) {
            0 => {
                self.store.delete_tag(&here, &tag, "racer").await.unwrap();
            }
            1 => {
                self.store
                    .delete_manifest(&here, &digest, &[], "racer")
                    .await
                    .unwrap();
            }
            2 => {
                let layer = Digest::sha256(layers(any(IMAGES))[0].as_bytes());
                self.store.hide_blob(&here, &layer).await.unwrap();
            }
            3 => drop(self.store.find_manifest(&here, &digest).await.unwrap()),
            _ => {
                let by_tag = any(2) == 0;
                let undelete = Undelete {
                    repository: here,
                    tag: by_tag.then_some(tag),
                    digest: (!by_tag).then_some(digest),
                    force: any(2) == 0,
                    actor: "racer".to_owned(),
                };
                let outcome = self.store.undelete(undelete).await.unwrap();
                if matches!(
                    outcome,
                    crate::metadata::collection::UndeleteOutcome::Restored { .. }
                ) {
                    self.restored.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }

    async fn collect(&self) {
        let manifests = self.store.review_manifests().await.unwrap();
        self.store.review_links().await.unwrap();
        self.purged
            .fetch_add(manifests.removed.len() as u64, Ordering::Relaxed);
        self.reap().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    async fn reap(&self) {
        let doomed = self.store.claim_doomed(100).await.unwrap();
        let keys: Vec<ObjectName> = doomed.into_iter().map(|object| object.key).collect();
        if !keys.is_empty() {
            self.deleted
                .lock()
                .extend(keys.iter().map(|key| key.as_str().to_owned()));
            self.store.forget_doomed(&keys).await.unwrap();
        }
    }

    /// Who can be pulled is complete, and its bytes are there.
    async fn check_survivors(&self) {
        for number in 0..REPOSITORIES {
            let here = repository(number);
            for number in 0..IMAGES {
                let wanted = image(&here, number);
                if self
                    .store
                    .find_manifest(&here, &wanted.digest)
                    .await
                    .unwrap()
                    .is_none()
                {
                    continue;
                }
                for layer in &wanted.blobs {
                    let blob = self.store.find_blob(&here, layer).await.unwrap();
                    let blob = blob.unwrap_or_else(|| panic!("image {number} of {here} lacks {layer}"));
                    assert!(
                        !self.deleted.lock().contains(blob.key.as_str()),
                        "{layer} has lost its bytes"
                    );
                }
            }
            for item in everything(&*self.store, &here).await {
                assert!(
                    item.verdict.fate != Fate::Remove || item.review_at.is_some(),
                    "nobody will look at this again: {item:?}"
                );
            }
        }
    }

    async fn delete_all(&self) {
        for number in 0..REPOSITORIES {
            let here = repository(number);
            for name in self
                .store
                .list_tags(&here, None, 1000)
                .await
                .unwrap()
                .unwrap_or_default()
            {
                self.store.delete_tag(&here, &name, "racer").await.unwrap();
            }
        }
        for _ in 0..400 {
            review(&*self.store).await;
            self.reap().await;
            let mut left = 0;
            for number in 0..REPOSITORIES {
                left += everything(&*self.store, &repository(number)).await.len();
            }
            if left == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for number in 0..REPOSITORIES {
            let left = everything(&*self.store, &repository(number)).await;
            assert!(left.is_empty(), "{left:#?}");
            let digest = Digest::sha256(layers(0)[0].as_bytes());
            let used = self.store.usage_bytes(&repository(number)).await.unwrap();
            assert_eq!(used, 0);
            assert!(
                explained(&*self.store, &repository(number), &digest)
                    .await
                    .is_empty()
            );
        }
        self.reap().await;
        let (stored, deleted) = (self.stored.lock(), self.deleted.lock());
        let orphans: Vec<&String> = stored.difference(&deleted).collect();
        assert!(
            orphans.is_empty(),
            "{} objects of {} are left",
            orphans.len(),
            stored.len()
        );
    }
}

async fn everything(store: &dyn MetadataStore, here: &RepoName) -> Vec<Explained> {
    let mut items = Vec::new();
    let mut after: Option<Cursor> = None;
    loop {
        let question = Explain::Repository {
            repository: here.clone(),
            after,
            limit: 100,
        };
        let page = store.explain(question).await.unwrap();
        items.extend(page.items);
        after = page.next;
        if after.is_none() {
            return items;
        }
    }
}
