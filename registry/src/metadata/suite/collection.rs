//! Garbage collection and the trash, on a store whose delays are [`limits`].

use std::time::Duration;

use super::*;
use crate::config::Limits;
use crate::metadata::collection::{Explain, Explained, Fate, Kind, Pulls, Reason, Undelete, UndeleteOutcome};

/// Long enough to act within on a busy machine, short enough to wait for.
const WINDOW: Duration = Duration::from_millis(600);

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
    the_trash_gives_back_what_was_deleted(store).await;
    an_index_comes_back_with_what_it_lists(store).await;
    a_tag_that_was_set_again_is_not_moved_silently(store).await;
    usage_and_ages_are_known(store).await;
    immutable_tags_stay(store).await;
    a_pause_lasts_until_it_is_confirmed(store).await;
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
async fn until(store: &dyn MetadataStore, what: &str, condition: impl AsyncFn() -> bool) {
    for _ in 0..400 {
        review(store).await;
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}: not after eight seconds");
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

async fn reason(store: &dyn MetadataStore, repository: &RepoName, digest: &Digest) -> Option<Reason> {
    explained(store, repository, digest).await.pop()?.verdict.reason
}

async fn image(store: &dyn MetadataStore, here: &RepoName, name: &str, tags: &[&str]) -> (Digest, Digest) {
    let layer = blob(store, here, &format!("layer of {name}")).await;
    let mut put = manifest(here, &format!("image {name}"));
    put.blobs = vec![layer];
    put.tags = tags.iter().map(|name| tag(name)).collect();
    (stored(store, put).await, layer)
}

async fn is_there(store: &dyn MetadataStore, here: &RepoName, digest: &Digest) -> bool {
    !explained(store, here, digest).await.is_empty()
}

async fn undelete(
    store: &dyn MetadataStore,
    here: &RepoName,
    tag: Option<&str>,
    digest: Option<Digest>,
    force: bool,
) -> UndeleteOutcome {
    let undelete = Undelete {
        repository: here.clone(),
        tag: tag.map(super::tag),
        digest,
        force,
        actor: "tester".to_owned(),
    };
    store.undelete(undelete).await.unwrap()
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

async fn the_trash_gives_back_what_was_deleted(store: &dyn MetadataStore) {
    let here = repo("gc/trash");
    let (image, layer) = image(store, &here, "deleted", &["a", "b"]).await;
    assert!(store.delete_tag(&here, &tag("a"), "tester").await.unwrap());
    let tags = store.list_deleted_tags(&here, 10).await.unwrap();
    assert_eq!((tags.len(), &tags[0].tag, tags[0].digest), (1, &tag("a"), image));
    let restored = |manifests: &[Digest], tags: &[&str]| UndeleteOutcome::Restored {
        manifests: manifests.to_vec(),
        tags: tags.iter().map(|name| tag(name)).collect(),
    };
    assert_eq!(
        undelete(store, &here, Some("a"), None, false).await,
        restored(&[], &["a"])
    );
    assert_eq!(store.resolve_tag(&here, &tag("a")).await.unwrap(), Some(image));

    store.delete_manifest(&here, &image, &[], "tester").await.unwrap();
    assert_eq!(reason(store, &here, &image).await, Some(Reason::Trashed));
    assert_eq!(
        store.hide_blob(&here, &layer).await.unwrap(),
        DeleteOutcome::Deleted
    );
    review(store).await;
    let page = store.list_trash(&here, (0, 0), 10).await.unwrap();
    assert_eq!((page.manifests.len(), page.manifests[0].digest), (1, image));
    assert_eq!(page.manifests[0].deleted_by, "tester");
    assert_eq!(store.list_deleted_tags(&here, 10).await.unwrap().len(), 2);
    assert_eq!(
        undelete(store, &here, None, Some(image), false).await,
        restored(&[image], &["a", "b"])
    );
    assert!(store.find_manifest(&here, &image).await.unwrap().is_some());
    assert!(
        store.find_blob(&here, &layer).await.unwrap().is_some(),
        "its blob is visible again"
    );
    assert!(store.list_repositories(None, 1000).await.unwrap().contains(&here));
    assert_eq!(store.list_trash(&here, (0, 0), 10).await.unwrap().manifests, []);
    assert_eq!(
        undelete(store, &here, None, Some(image), false).await,
        UndeleteOutcome::Unknown
    );

    store.delete_manifest(&here, &image, &[], "tester").await.unwrap();
    until(store, "it is purged", async || {
        !is_there(store, &here, &image).await
    })
    .await;
    assert_eq!(
        undelete(store, &here, Some("a"), None, false).await,
        UndeleteOutcome::Unknown
    );
    assert_eq!(store.list_deleted_tags(&here, 10).await.unwrap(), []);
}

async fn an_index_comes_back_with_what_it_lists(store: &dyn MetadataStore) {
    let here = repo("gc/index");
    let (child, _) = image(store, &here, "platform", &[]).await;
    let mut list = manifest(&here, "platforms");
    list.children = vec![child];
    list.tags = vec![tag("latest")];
    let index = stored(store, list).await;
    store.delete_manifest(&here, &index, &[], "tester").await.unwrap();
    assert_eq!(
        store.delete_manifest(&here, &child, &[], "tester").await.unwrap(),
        DeleteOutcome::Deleted
    );
    assert_eq!(
        reason(store, &here, &child).await,
        Some(Reason::Index(index)),
        "it goes after its index"
    );
    let UndeleteOutcome::Restored { mut manifests, tags } =
        undelete(store, &here, Some("latest"), None, false).await
    else {
        panic!("the index is in the trash")
    };
    manifests.sort();
    let mut expected = vec![index, child];
    expected.sort();
    assert_eq!((manifests, tags), (expected, vec![tag("latest")]));
    assert!(store.find_manifest(&here, &child).await.unwrap().is_some());
}

async fn a_tag_that_was_set_again_is_not_moved_silently(store: &dyn MetadataStore) {
    let here = repo("gc/taken");
    let (first, _) = image(store, &here, "first", &["v1"]).await;
    store.delete_tag(&here, &tag("v1"), "tester").await.unwrap();
    let (second, _) = image(store, &here, "second", &["v1"]).await;
    assert_eq!(
        undelete(store, &here, Some("v1"), None, false).await,
        UndeleteOutcome::Taken {
            tag: tag("v1"),
            digest: second
        }
    );
    undelete(store, &here, Some("v1"), None, true).await;
    assert_eq!(store.resolve_tag(&here, &tag("v1")).await.unwrap(), Some(first));
    undelete(store, &here, Some("v1"), Some(second), true).await;
    assert_eq!(store.resolve_tag(&here, &tag("v1")).await.unwrap(), Some(second));
}

async fn usage_and_ages_are_known(store: &dyn MetadataStore) {
    let here = repo("gc/usage");
    assert_eq!(store.usage_bytes(&here).await.unwrap(), 0);
    let (digest, _) = image(store, &here, "used", &["a", "b"]).await;
    let bytes = ("layer of used".len() + "image used".len()) as u64;
    assert_eq!(store.usage_bytes(&here).await.unwrap(), bytes);
    assert_eq!(store.trash_bytes(&here).await.unwrap(), 0);
    let pulls = Pulls {
        repository: here.clone(),
        digest,
        count: 1,
    };
    store.record_pulls(vec![pulls]).await.unwrap();
    let ages = store.list_tag_ages(&here, None, 1).await.unwrap();
    assert_eq!(
        (ages.len(), &ages[0].name, ages[0].digest),
        (1, &tag("a"), digest)
    );
    assert!(ages[0].pulled_at.unwrap() >= ages[0].updated_at);
    let rest = store.list_tag_ages(&here, Some("a"), 10).await.unwrap();
    assert_eq!((rest.len(), &rest[0].name), (1, &tag("b")));
    // Set again meanwhile: it is no longer that old.
    image(store, &here, "used", &["a"]).await;
    assert!(!store.expire_tag(&here, &ages[0], "policy").await.unwrap());
    assert!(store.expire_tag(&here, &rest[0], "policy").await.unwrap());
    assert_eq!(
        store.list_deleted_tags(&here, 10).await.unwrap()[0].deleted_by,
        "policy"
    );
    store
        .delete_manifest(&here, &digest, &[], "tester")
        .await
        .unwrap();
    assert_eq!(store.usage_bytes(&here).await.unwrap(), bytes, "the trash counts");
    assert_eq!(store.trash_bytes(&here).await.unwrap(), bytes);
}

async fn immutable_tags_stay(store: &dyn MetadataStore) {
    let here = repo("gc/immutable");
    let (first, _) = image(store, &here, "first", &["v1"]).await;
    let mut put = manifest(&here, "image second");
    put.tags = vec![tag("new"), tag("v1")];
    put.immutable = vec![tag("v1")];
    assert_eq!(
        store.put_manifest(put.clone()).await.unwrap(),
        PutOutcome::Immutable(tag("v1"))
    );
    assert_eq!(
        store.resolve_tag(&here, &tag("new")).await.unwrap(),
        None,
        "all or nothing"
    );
    assert_eq!(store.find_manifest(&here, &put.digest).await.unwrap(), None);
    let patterns = ["v*".parse().unwrap()];
    assert_eq!(
        store
            .delete_manifest(&here, &first, &patterns, "tester")
            .await
            .unwrap(),
        DeleteOutcome::Tagged(tag("v1"))
    );
    let mut again = put.clone();
    again.digest = first;
    again.bytes = Bytes::from_static(b"image first");
    again.tags = vec![tag("v1")];
    stored(store, again).await;
    assert_eq!(store.resolve_tag(&here, &tag("v1")).await.unwrap(), Some(first));
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
