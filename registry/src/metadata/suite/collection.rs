//! Garbage collection, on a store whose delays are [`limits`].

use std::time::Duration;

use super::trash::deleted_tags;
use super::*;
use crate::config::Limits;
use crate::metadata::collection::{Explain, Explained, Fate, Kind, Pulls, Reason};

/// Long enough to act within on a busy machine, short enough to wait for.
const WINDOW: Duration = Duration::from_millis(1200);

pub(crate) fn limits() -> Limits {
    Limits {
        undelete_window: WINDOW,
        review_delay: WINDOW / 2,
        delete_delay: Duration::ZERO,
        ..Limits::default()
    }
}

pub(crate) async fn run(store: &dyn MetadataStore) {
    what_nothing_refers_to_goes(store).await;
    a_blob_lives_as_long_as_one_repository_has_it(store).await;
    whoever_asks_for_a_blob_keeps_it(store).await;
    children_and_referrers_follow(store).await;
    what_comes_after_a_sparse_manifest_is_held(store).await;
    cache_records_hold_their_layers_until_they_expire(store).await;
    pulls_keep_untagged_manifests(store).await;
    a_running_build_keeps_what_it_uses(store).await;
    trash::it_gives_back_what_was_deleted(store).await;
    trash::an_index_comes_back_with_what_it_lists(store).await;
    trash::a_tag_that_was_set_again_is_not_moved_silently(store).await;
    policing::usage_and_ages_are_known(store).await;
    policing::immutable_tags_stay(store).await;
    a_pause_lasts_until_it_is_confirmed(store).await;
    old_changes_of_tags_are_forgotten(store).await;
}

/// Reviews everything that is due now.
pub(super) async fn review(store: &dyn MetadataStore) {
    loop {
        let manifests = store.review_manifests().await.unwrap();
        let links = store.review_links().await.unwrap();
        if manifests.decided + links.decided == 0 {
            return;
        }
    }
}

/// Collects until it is so.
pub(super) async fn until(store: &dyn MetadataStore, what: &str, condition: impl AsyncFn() -> bool) {
    for _ in 0..800 {
        review(store).await;
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}: not after sixteen seconds");
}

/// Collects for longer than anything waits.
async fn settle(store: &dyn MetadataStore) {
    for _ in 0..4 {
        tokio::time::sleep(WINDOW / 2).await;
        review(store).await;
    }
}

pub(super) async fn explained(
    store: &dyn MetadataStore,
    repository: &RepoName,
    digest: &Digest,
) -> Vec<Explained> {
    let question = Explain::One {
        repository: repository.clone(),
        digest: *digest,
    };
    store.explain(question).await.unwrap().items
}

pub(super) async fn reason(
    store: &dyn MetadataStore,
    repository: &RepoName,
    digest: &Digest,
) -> Option<Reason> {
    explained(store, repository, digest).await.pop()?.verdict.reason
}

pub(super) async fn image(
    store: &dyn MetadataStore,
    here: &RepoName,
    name: &str,
    tags: &[&str],
) -> (Digest, Digest) {
    let layer = blob(store, here, &format!("layer of {name}")).await;
    let mut put = manifest(here, &format!("image {name}"));
    put.blobs = vec![layer];
    put.tags = tags.iter().map(|name| tag(name)).collect();
    (stored(store, put).await, layer)
}

pub(super) async fn is_there(store: &dyn MetadataStore, here: &RepoName, digest: &Digest) -> bool {
    !explained(store, here, digest).await.is_empty()
}

async fn what_nothing_refers_to_goes(store: &dyn MetadataStore) {
    let here = repo("gc/plain");
    let (kept, kept_layer) = image(store, &here, "kept", &["v1"]).await;
    let (gone, gone_layer) = image(store, &here, "gone", &["v2"]).await;
    let stray = blob(store, &here, "a stray blob").await;
    let key = store.find_blob(&here, &gone_layer).await.unwrap().unwrap().key;
    assert_eq!(reason(store, &here, &kept).await, Some(Reason::Tag("v1".into())));
    assert_eq!(
        reason(store, &here, &kept_layer).await,
        Some(Reason::Manifest(kept))
    );
    assert!(store.delete_tag(&here, &tag("v2"), "tester").await.unwrap());
    assert_eq!(reason(store, &here, &gone).await, Some(Reason::Untagged));
    until(store, "the untagged image goes", async || {
        !is_there(store, &here, &gone).await && !is_there(store, &here, &gone_layer).await
    })
    .await;
    assert!(!is_there(store, &here, &stray).await);
    settle(store).await;
    let (kept, layer) = (
        explained(store, &here, &kept).await,
        explained(store, &here, &kept_layer).await,
    );
    assert_eq!(kept[0].review_at, None, "what is needed is not looked at again");
    assert_eq!(layer[0].review_at, None);
    let doomed = store.claim_doomed(100).await.unwrap();
    let object = doomed.iter().find(|object| object.key == key).unwrap();
    assert_eq!(object.size, Some("layer of gone".len() as u64));
    let keys: Vec<ObjectName> = doomed.into_iter().map(|object| object.key).collect();
    store.forget_doomed(&keys).await.unwrap();
    let queue = store.review_queue().await.unwrap();
    assert_eq!((queue.manifests, queue.links), (0, 0));
    let events = store.events_to_journal(1000).await.unwrap();
    let purged = events
        .iter()
        .filter(|event| event.change == Change::purged(gone))
        .count();
    assert_eq!(purged, 1, "a journal without it would bring the image back");
}

async fn a_blob_lives_as_long_as_one_repository_has_it(store: &dyn MetadataStore) {
    let (here, there) = (repo("gc/first"), repo("gc/second"));
    let (_, layer) = image(store, &here, "shared", &["v1"]).await;
    assert!(store.mount_blob(&there, &here, &layer).await.unwrap());
    until(store, "the mounted link goes unused", async || {
        !is_there(store, &there, &layer).await
    })
    .await;
    assert!(store.find_blob(&here, &layer).await.unwrap().is_some());
    assert!(store.mount_blob(&there, &here, &layer).await.unwrap());
    let mut put = manifest(&there, "image shared");
    put.blobs = vec![layer];
    put.tags = vec![tag("v1")];
    stored(store, put).await;
    store.delete_tag(&here, &tag("v1"), "tester").await.unwrap();
    until(store, "the first repository lets it go", async || {
        !is_there(store, &here, &layer).await
    })
    .await;
    assert!(store.find_blob(&there, &layer).await.unwrap().is_some());
}

async fn whoever_asks_for_a_blob_keeps_it(store: &dyn MetadataStore) {
    let here = repo("gc/asked");
    let layer = blob(store, &here, "asked for").await;
    for _ in 0..6 {
        tokio::time::sleep(WINDOW / 4).await;
        assert!(store.find_blob(&here, &layer).await.unwrap().is_some());
        review(store).await;
    }
    until(store, "nobody asks any more", async || {
        !is_there(store, &here, &layer).await
    })
    .await;
    assert_eq!(store.find_blob(&here, &layer).await.unwrap(), None);
}

async fn children_and_referrers_follow(store: &dyn MetadataStore) {
    let here = repo("gc/tree");
    let (child, layer) = image(store, &here, "child", &[]).await;
    let mut list = manifest(&here, "an index of one");
    list.children = vec![child];
    list.tags = vec![tag("all")];
    let index = stored(store, list).await;
    let mut signature = manifest(&here, "a signature");
    signature.subject = Some(index);
    let signature = stored(store, signature).await;
    settle(store).await;
    assert_eq!(reason(store, &here, &child).await, Some(Reason::Index(index)));
    assert_eq!(
        reason(store, &here, &signature).await,
        Some(Reason::Subject(index))
    );
    store.delete_tag(&here, &tag("all"), "tester").await.unwrap();
    until(store, "all of the tree goes", async || {
        for digest in [&index, &child, &signature, &layer] {
            if is_there(store, &here, digest).await {
                return false;
            }
        }
        true
    })
    .await;
    assert!(!store.list_repositories(None, 1000).await.unwrap().contains(&here));
}

async fn what_comes_after_a_sparse_manifest_is_held(store: &dyn MetadataStore) {
    let here = repo("gc/sparse");
    let (layer, child) = (Digest::sha256(b"late layer"), Digest::sha256(b"late child"));
    let mut put = manifest(&here, "sparse");
    put.blobs = vec![layer];
    put.children = vec![child];
    (put.blobs_required, put.children_required) = (false, false);
    put.tags = vec![tag("v1")];
    let sparse = stored(store, put).await;
    assert_eq!(blob(store, &here, "late layer").await, layer);
    assert_eq!(stored(store, manifest(&here, "late child")).await, child);
    settle(store).await;
    assert_eq!(reason(store, &here, &layer).await, Some(Reason::Manifest(sparse)));
    assert_eq!(reason(store, &here, &child).await, Some(Reason::Index(sparse)));
    assert_eq!(
        store.hide_blob(&here, &layer).await.unwrap(),
        DeleteOutcome::ReferencedBy(sparse)
    );
    store.delete_tag(&here, &tag("v1"), "tester").await.unwrap();
    until(store, "they go with their manifest", async || {
        !is_there(store, &here, &layer).await && !is_there(store, &here, &child).await
    })
    .await;
}

async fn cache_records_hold_their_layers_until_they_expire(store: &dyn MetadataStore) {
    let here = repo("gc/cache");
    let (first, second) = (
        blob(store, &here, "cached one").await,
        blob(store, &here, "cached two").await,
    );
    store
        .put_cache_record(&here, "key", "{}", &[first])
        .await
        .unwrap();
    settle(store).await;
    assert_eq!(
        reason(store, &here, &first).await,
        Some(Reason::CacheRecord("key".into()))
    );
    blob(store, &here, "cached two").await;
    store
        .put_cache_record(&here, "key", "{}", &[second])
        .await
        .unwrap();
    store.put_memo(&here, "memo", "text").await.unwrap();
    until(store, "the replaced layer goes", async || {
        !is_there(store, &here, &first).await
    })
    .await;
    assert!(store.find_blob(&here, &second).await.unwrap().is_some());
    assert_eq!(
        store.expire_cache(Duration::from_secs(3600), 100).await.unwrap(),
        0
    );
    assert!(store.expire_cache(Duration::ZERO, 100).await.unwrap() >= 2);
    assert_eq!(
        store
            .find_cache_records(&here, &["key".to_owned()])
            .await
            .unwrap(),
        []
    );
    until(store, "the expired layer goes", async || {
        !is_there(store, &here, &second).await
    })
    .await;
}

async fn pulls_keep_untagged_manifests(store: &dyn MetadataStore) {
    let here = repo("gc/pulled");
    let (pulled, _) = image(store, &here, "pulled", &[]).await;
    let pulls = |digest| Pulls {
        repository: here.clone(),
        digest,
        count: 2,
    };
    for _ in 0..8 {
        tokio::time::sleep(WINDOW / 4).await;
        let unknown = Digest::sha256(b"never pushed");
        store
            .record_pulls(vec![pulls(pulled), pulls(unknown)])
            .await
            .unwrap();
        review(store).await;
    }
    assert_eq!(reason(store, &here, &pulled).await, Some(Reason::Pulled));
    until(store, "nobody pulls it any more", async || {
        !is_there(store, &here, &pulled).await
    })
    .await;
}

/// Even what was deleted meanwhile: the build has read the manifest and needs its layers.
async fn a_running_build_keeps_what_it_uses(store: &dyn MetadataStore) {
    let here = repo("gc/held");
    let (held, layer) = image(store, &here, "held", &["base"]).await;
    let (other, _) = image(store, &here, "not held", &["other"]).await;
    store.hold(&here, &held, "build-1", WINDOW * 4).await.unwrap();
    for digest in [&held, &other] {
        store.delete_manifest(&here, digest, &[], "tester").await.unwrap();
    }
    until(store, "what nobody holds goes", async || {
        !is_there(store, &here, &other).await
    })
    .await;
    assert_eq!(reason(store, &here, &held).await, Some(Reason::Build));
    assert!(store.find_blob(&here, &layer).await.unwrap().is_some());
    until(store, "the hold ends", async || {
        !is_there(store, &here, &held).await
    })
    .await;
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(store.forget(day, 10).await.unwrap(), 1);
    assert_eq!(
        store.forget(day, 10).await.unwrap(),
        0,
        "today's tags are remembered"
    );
}

async fn a_pause_lasts_until_it_is_confirmed(store: &dyn MetadataStore) {
    assert_eq!(store.begin_collection().await.unwrap(), None);
    assert_eq!(store.collection_paused().await.unwrap(), None);
    store.confirm_collection().await.unwrap();
    assert_eq!(store.begin_collection().await.unwrap(), None);
    let page = store
        .explain(Explain::Reviews {
            after: None,
            limit: 1,
        })
        .await
        .unwrap();
    let mut seen = page.items.len();
    let mut next = page.next;
    while let Some(after) = next {
        let page = store
            .explain(Explain::Reviews {
                after: Some(after),
                limit: 2,
            })
            .await
            .unwrap();
        seen += page.items.len();
        next = page.next;
    }
    let all = store
        .explain(Explain::Reviews {
            after: None,
            limit: 1000,
        })
        .await
        .unwrap();
    assert_eq!(all.items.len(), seen, "pages follow each other");
    assert!(all.items.iter().any(|item| item.kind == Kind::Manifest));
    assert!(all.items.iter().all(|item| item.review_at.is_some()));
    assert!(all.items.iter().any(|item| item.verdict.fate != Fate::Remove));
}

async fn old_changes_of_tags_are_forgotten(store: &dyn MetadataStore) {
    let here = repo("gc/history");
    image(store, &here, "remembered", &["v1"]).await;
    assert!(store.delete_tag(&here, &tag("v1"), "tester").await.unwrap());
    assert_eq!(deleted_tags(store, &here).await.len(), 1);
    while store.forget(Duration::ZERO, 3).await.unwrap() > 0 {}
    assert_eq!(deleted_tags(store, &here).await, []);
}
