//! Manifests, tags, lists.

use oci::{Digest, Tag};

use super::*;

pub(super) async fn manifests_need_what_they_refer_to(store: &dyn MetadataStore) {
    let (here, there) = (repo("manifests"), repo("manifests/other"));
    let config = blob(store, &here, "config").await;
    let foreign = blob(store, &there, "foreign").await;
    let unknown = Digest::sha256(b"unknown");
    let mut put = manifest(&here, "needy");
    put.blobs = vec![config, foreign, unknown];
    put.children = vec![unknown];
    put.tags = vec![tag("needy")];
    let outcome = store.put_manifest(put.clone()).await.unwrap();
    let PutOutcome::Missing { mut blobs, manifests } = outcome else {
        panic!("it lacks three references")
    };
    blobs.sort();
    let mut expected = vec![foreign, unknown];
    expected.sort();
    assert_eq!((blobs, manifests), (expected, vec![unknown]));
    assert_eq!(
        store.resolve_tag(&here, &tag("needy")).await.unwrap(),
        None,
        "nothing was changed"
    );
    assert_eq!(store.find_manifest(&here, &put.digest).await.unwrap(), None);

    put.blobs_required = false;
    put.children_required = false;
    let digest = stored(store, put.clone()).await;
    assert_eq!(
        store.resolve_tag(&here, &tag("needy")).await.unwrap(),
        Some(digest)
    );
    let found = store.find_manifest(&here, &digest).await.unwrap().unwrap();
    assert_eq!(
        (found.digest, found.bytes.as_ref()),
        (digest, b"needy".as_slice())
    );
    assert_eq!(store.find_manifest(&there, &digest).await.unwrap(), None);

    let mut nowhere = manifest(&repo("manifests/new"), "in a new repository");
    nowhere.blobs = vec![config];
    let outcome = store.put_manifest(nowhere).await.unwrap();
    assert_eq!(
        outcome,
        PutOutcome::Missing {
            blobs: vec![config],
            manifests: vec![]
        }
    );
}

pub(super) async fn an_index_may_list_blobs(store: &dyn MetadataStore) {
    let here = repo("cache-index");
    let layer = blob(store, &here, "listed layer").await;
    let mut list = manifest(&here, "index of layers");
    list.children = vec![layer];
    let index = stored(store, list).await;
    assert_eq!(
        store.hide_blob(&here, &layer).await.unwrap(),
        DeleteOutcome::ReferencedBy(index)
    );
}

pub(super) async fn tags_move_and_go(store: &dyn MetadataStore) {
    let here = repo("tags/moving");
    let mut put = manifest(&here, "one");
    put.tags = vec![tag("a"), tag("b")];
    let one = stored(store, put).await;
    let mut put = manifest(&here, "two");
    put.tags = vec![tag("b")];
    let two = stored(store, put).await;
    assert_eq!(store.resolve_tag(&here, &tag("a")).await.unwrap(), Some(one));
    assert_eq!(store.resolve_tag(&here, &tag("b")).await.unwrap(), Some(two));
    assert!(store.delete_tag(&here, &tag("b"), "tester").await.unwrap());
    assert!(!store.delete_tag(&here, &tag("b"), "tester").await.unwrap());
    assert_eq!(store.resolve_tag(&here, &tag("b")).await.unwrap(), None);
    assert!(
        store.find_manifest(&here, &two).await.unwrap().is_some(),
        "its manifest stays"
    );
    assert_eq!(
        store.delete_manifest(&here, &one, &[], "tester").await.unwrap(),
        DeleteOutcome::Deleted
    );
    assert_eq!(store.resolve_tag(&here, &tag("a")).await.unwrap(), None);
    assert_eq!(store.list_tags(&here, None, 10).await.unwrap(), Some(vec![]));
}

pub(super) async fn deletions_respect_references(store: &dyn MetadataStore) {
    let here = repo("deletions");
    let layer = blob(store, &here, "held layer").await;
    let mut image = manifest(&here, "held image");
    image.blobs = vec![layer];
    let held = stored(store, image.clone()).await;
    let mut list = manifest(&here, "index");
    list.children = vec![held];
    let index = stored(store, list).await;

    assert_eq!(
        store.hide_blob(&here, &layer).await.unwrap(),
        DeleteOutcome::ReferencedBy(held)
    );
    assert_eq!(
        store.delete_manifest(&here, &held, &[], "tester").await.unwrap(),
        DeleteOutcome::ReferencedBy(index)
    );
    assert_eq!(
        store.delete_manifest(&here, &index, &[], "tester").await.unwrap(),
        DeleteOutcome::Deleted
    );
    assert_eq!(
        store.delete_manifest(&here, &held, &[], "tester").await.unwrap(),
        DeleteOutcome::Deleted
    );
    assert_eq!(
        store.delete_manifest(&here, &held, &[], "tester").await.unwrap(),
        DeleteOutcome::Unknown
    );
    assert_eq!(store.find_manifest(&here, &held).await.unwrap(), None);
    assert!(
        !store.list_repositories(None, 1000).await.unwrap().contains(&here),
        "only trash is left"
    );
    assert_eq!(
        store.hide_blob(&here, &layer).await.unwrap(),
        DeleteOutcome::Deleted
    );

    // Pushing again brings a manifest back from the trash, once its blob is visible again.
    let outcome = store.put_manifest(image.clone()).await.unwrap();
    assert_eq!(
        outcome,
        PutOutcome::Missing {
            blobs: vec![layer],
            manifests: vec![]
        }
    );
    blob(store, &here, "held layer").await;
    stored(store, image).await;
    assert!(store.find_manifest(&here, &held).await.unwrap().is_some());
    assert!(store.list_repositories(None, 1000).await.unwrap().contains(&here));
}

pub(super) async fn pages_follow_each_other(store: &dyn MetadataStore) {
    let here = repo("pages");
    let names = ["1", "10", "2", "B", "_x", "a", "b"];
    let mut put = manifest(&here, "paged");
    put.tags = names.iter().rev().map(|name| tag(name)).collect();
    stored(store, put).await;
    let mut seen: Vec<Tag> = Vec::new();
    loop {
        let after = seen.last().map(|last| last.as_str().to_owned());
        let page = store
            .list_tags(&here, after.as_deref(), 3)
            .await
            .unwrap()
            .unwrap();
        assert!(page.len() <= 3);
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    assert_eq!(seen, names.map(tag), "bytes decide the order");
    assert_eq!(store.list_tags(&repo("pages/none"), None, 3).await.unwrap(), None);

    for name in ["z/1", "z/2", "z-1"] {
        stored(store, manifest(&repo(name), "listed")).await;
    }
    let page = store.list_repositories(Some("z"), 2).await.unwrap();
    assert_eq!(page, [repo("z-1"), repo("z/1")]);
    assert_eq!(
        store.list_repositories(Some("z/1"), 2).await.unwrap(),
        [repo("z/2")]
    );
}

pub(super) async fn referrers_are_ordered_and_filtered(store: &dyn MetadataStore) {
    let here = repo("referrers");
    let subject = Digest::sha256(b"a subject that need not exist");
    let mut expected = Vec::new();
    for (index, artifact_type) in ["sig", "sbom", "sig", "sbom", ""].iter().enumerate() {
        let mut put = manifest(&here, &format!("referrer {index}"));
        put.subject = Some(subject);
        put.artifact_type = (*artifact_type).to_owned();
        put.descriptor = Some(format!("{{\"index\":{index}}}"));
        let descriptor = put.descriptor.clone().unwrap();
        let digest = stored(store, put).await;
        expected.push(Referrer {
            artifact_type: (*artifact_type).to_owned(),
            digest,
            descriptor,
        });
    }
    expected.sort_by(|a, b| (&a.artifact_type, a.digest).cmp(&(&b.artifact_type, b.digest)));
    let query = |artifact_type: Option<&str>, after, limit| ReferrersQuery {
        repository: here.clone(),
        subject,
        artifact_type: artifact_type.map(str::to_owned),
        after,
        limit,
    };
    let cursor = |referrer: &Referrer| Some((referrer.artifact_type.clone(), referrer.digest));
    let first = store.list_referrers(query(None, None, 2)).await.unwrap();
    assert_eq!(first, expected[..2]);
    let rest = store
        .list_referrers(query(None, cursor(&first[1]), 9))
        .await
        .unwrap();
    assert_eq!(rest, expected[2..]);
    let signatures: Vec<Referrer> = expected
        .iter()
        .filter(|referrer| referrer.artifact_type == "sig")
        .cloned()
        .collect();
    let first = store.list_referrers(query(Some("sig"), None, 1)).await.unwrap();
    let second = store
        .list_referrers(query(Some("sig"), cursor(&first[0]), 9))
        .await
        .unwrap();
    assert_eq!([first, second].concat(), signatures);
    store
        .delete_manifest(&here, &signatures[0].digest, &[], "tester")
        .await
        .unwrap();
    assert_eq!(
        store.list_referrers(query(Some("sig"), None, 9)).await.unwrap(),
        signatures[1..]
    );
}

pub(super) async fn a_wide_manifest_is_stored_and_found(store: &dyn MetadataStore) {
    let here = repo("wide");
    let layers: Vec<Digest> = {
        let mut layers = Vec::new();
        for index in 0..300 {
            layers.push(blob(store, &here, &format!("layer {index}")).await);
        }
        layers
    };
    let mut put = manifest(&here, &"w".repeat(100_000));
    put.blobs = layers.clone();
    let digest = stored(store, put).await;
    assert_eq!(
        store
            .find_manifest(&here, &digest)
            .await
            .unwrap()
            .unwrap()
            .bytes
            .len(),
        100_000
    );
    assert_eq!(
        store.hide_blob(&here, &layers[299]).await.unwrap(),
        DeleteOutcome::ReferencedBy(digest)
    );
}
