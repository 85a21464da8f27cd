//! What policies ask of a store: usage, ages of tags, tags that stay.

use super::collection::image;
use super::trash::deleted_tags;
use super::*;
use crate::metadata::collection::Pulls;

pub(super) async fn usage_and_ages_are_known(store: &dyn MetadataStore) {
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
    assert_eq!(deleted_tags(store, &here).await[0].deleted_by, "policy");
    store
        .delete_manifest(&here, &digest, &[], "tester")
        .await
        .unwrap();
    assert_eq!(store.usage_bytes(&here).await.unwrap(), bytes, "the trash counts");
    assert_eq!(store.trash_bytes(&here).await.unwrap(), bytes);
}

pub(super) async fn immutable_tags_stay(store: &dyn MetadataStore) {
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
