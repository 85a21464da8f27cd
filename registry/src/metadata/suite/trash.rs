//! The trash: what it gives back, and what not.

use super::collection::{image, is_there, reason, review, until};
use super::*;
use crate::metadata::collection::{Reason, TrashedTag, Undelete, UndeleteOutcome};

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

/// All of them, whatever a page takes.
pub(super) async fn deleted_tags(store: &dyn MetadataStore, here: &RepoName) -> Vec<TrashedTag> {
    let read = async |limit| {
        let (mut tags, mut after) = (Vec::new(), (i64::MAX, i64::MAX));
        loop {
            let page = store.list_deleted_tags(here, after, limit).await.unwrap();
            assert!(page.tags.len() <= limit as usize);
            tags.extend(page.tags);
            match page.next {
                Some(next) => after = next,
                None => return tags,
            }
        }
    };
    let tags = read(1000).await;
    assert_eq!(read(1).await, tags, "in pages of one");
    tags
}

pub(super) async fn it_gives_back_what_was_deleted(store: &dyn MetadataStore) {
    let here = repo("gc/trash");
    let (image, layer) = image(store, &here, "deleted", &["a", "b"]).await;
    assert!(store.delete_tag(&here, &tag("a"), "tester").await.unwrap());
    let tags = deleted_tags(store, &here).await;
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
    assert_eq!(deleted_tags(store, &here).await.len(), 2);
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
    assert_eq!(deleted_tags(store, &here).await, []);
    let events = store.events_to_journal(1000).await.unwrap();
    let told_twice = events.iter().any(|event| event.change == Change::purged(image));
    assert!(!told_twice, "its deletion was told when it went to the trash");
}

pub(super) async fn an_index_comes_back_with_what_it_lists(store: &dyn MetadataStore) {
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

pub(super) async fn a_tag_that_was_set_again_is_not_moved_silently(store: &dyn MetadataStore) {
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
