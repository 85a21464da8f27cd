//! What every metadata store must do. Each back end runs it on an empty store.

use bytes::Bytes;
use oci::{Algorithm, Digest, Hasher, RepoName, Tag};

use super::*;

pub(crate) async fn run(store: &dyn MetadataStore) {
    sessions_have_one_writer_and_move_forward(store).await;
    a_closed_session_makes_a_blob_visible_in_its_repository_alone(store).await;
    names_are_in_one_place_and_only_doomed_ones_are_handed_out(store).await;
    manifests_need_what_they_refer_to(store).await;
    tags_move_and_go(store).await;
    deletions_respect_references(store).await;
    pages_follow_each_other(store).await;
    referrers_are_ordered_and_filtered(store).await;
    cache_records_pin_their_blobs(store).await;
    a_wide_manifest_is_stored_and_found(store).await;
}

fn repo(name: &str) -> RepoName {
    name.parse().unwrap()
}

fn tag(name: &str) -> Tag {
    name.parse().unwrap()
}

fn new_key(digest: &Digest) -> ObjectName {
    ObjectName::new(format!("blobs/{digest}.{}", UploadId::random()))
}

fn closing(digest: Digest, key: &ObjectName) -> Option<Closing> {
    Some(Closing {
        digest,
        key: key.clone(),
    })
}

async fn session(
    store: &dyn MetadataStore,
    repository: &RepoName,
    closing: Option<Closing>,
) -> (UploadId, bool) {
    let id = UploadId::random();
    let upload = NewUpload {
        id,
        repository: repository.clone(),
        principal: "tester".to_owned(),
        algorithm: Algorithm::Sha256,
        closing,
    };
    let stored = store.create_upload(upload).await.unwrap();
    (id, stored)
}

/// Pushes a blob in one piece.
async fn blob(store: &dyn MetadataStore, repository: &RepoName, content: &str) -> Digest {
    let digest = Digest::sha256(content.as_bytes());
    let key = new_key(&digest);
    let (upload, stored) = session(store, repository, closing(digest, &key)).await;
    let commit = CommitBlob {
        upload,
        epoch: 1,
        repository: repository.clone(),
        digest,
        size: content.len() as u64,
        key: (!stored).then_some(key),
    };
    assert_eq!(store.commit_blob(commit).await.unwrap(), CommitOutcome::Committed);
    digest
}

fn manifest(repository: &RepoName, content: &str) -> PutManifest {
    PutManifest {
        repository: repository.clone(),
        digest: Digest::sha256(content.as_bytes()),
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        artifact_type: String::new(),
        subject: None,
        descriptor: None,
        bytes: Bytes::copy_from_slice(content.as_bytes()),
        blobs: Vec::new(),
        children: Vec::new(),
        blobs_required: true,
        children_required: true,
        tags: Vec::new(),
        actor: "tester".to_owned(),
    }
}

async fn stored(store: &dyn MetadataStore, put: PutManifest) -> Digest {
    let digest = put.digest;
    assert_eq!(store.put_manifest(put).await.unwrap(), PutOutcome::Stored);
    digest
}

async fn sessions_have_one_writer_and_move_forward(store: &dyn MetadataStore) {
    let (here, there) = (repo("sessions"), repo("elsewhere"));
    let (id, _) = session(store, &here, None).await;
    let claim = |offset| ClaimUpload {
        id,
        repository: here.clone(),
        offset,
        closing: None,
    };
    let ClaimOutcome::Claimed(first) = store.claim_upload(claim(None)).await.unwrap() else {
        panic!("a new session is free")
    };
    assert_eq!((first.offset, first.hash_state), (0, None));
    assert!(matches!(
        store.claim_upload(claim(None)).await.unwrap(),
        ClaimOutcome::Busy
    ));

    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(b"12345");
    let checkpoint = |epoch, offset, hash_state, release| Checkpoint {
        id,
        epoch,
        offset,
        hash_state,
        release,
    };
    assert!(
        store
            .checkpoint_upload(checkpoint(first.epoch, 5, Some(hasher.save()), true))
            .await
            .unwrap()
    );
    assert!(matches!(
        store.claim_upload(claim(Some(3))).await.unwrap(),
        ClaimOutcome::WrongOffset(5)
    ));
    let ClaimOutcome::Claimed(second) = store.claim_upload(claim(Some(5))).await.unwrap() else {
        panic!("a released session is free")
    };
    assert_eq!((second.offset, second.hash_state), (5, Some(hasher.save())));
    assert!(second.same_boot);
    let late = checkpoint(first.epoch, 9, Some(hasher.save()), false);
    assert!(
        !store.checkpoint_upload(late).await.unwrap(),
        "the first writer lost the session"
    );
    assert!(
        store
            .checkpoint_upload(checkpoint(second.epoch, 0, None, true))
            .await
            .unwrap()
    );
    assert_eq!(
        store.find_upload(id, &here).await.unwrap().unwrap().offset,
        5,
        "a mere release changes nothing"
    );

    assert!(
        store.find_upload(id, &there).await.unwrap().is_none(),
        "an id is valid in its repository only"
    );
    assert!(!store.cancel_upload(id, &there).await.unwrap());
    assert!(store.cancel_upload(id, &here).await.unwrap());
    assert!(matches!(
        store.claim_upload(claim(None)).await.unwrap(),
        ClaimOutcome::Unknown
    ));
}

async fn a_closed_session_makes_a_blob_visible_in_its_repository_alone(store: &dyn MetadataStore) {
    let (here, there) = (repo("links/here"), repo("links/there"));
    let digest = blob(store, &here, "linked").await;
    let found = store.find_blob(&here, &digest).await.unwrap().unwrap();
    assert_eq!(found.size, 6);
    assert_eq!(store.find_blob(&there, &digest).await.unwrap(), None);

    assert!(
        !store.mount_blob(&here, &there, &digest).await.unwrap(),
        "it isn't visible there"
    );
    assert!(store.mount_blob(&there, &here, &digest).await.unwrap());
    assert_eq!(store.find_blob(&there, &digest).await.unwrap(), Some(found));
    let mut names = store.repositories_of(&digest, 64).await.unwrap();
    names.sort();
    assert_eq!(names, [here.clone(), there.clone()]);

    assert_eq!(
        store.hide_blob(&here, &digest).await.unwrap(),
        DeleteOutcome::Deleted
    );
    assert_eq!(store.find_blob(&here, &digest).await.unwrap(), None);
    assert_eq!(
        store.hide_blob(&here, &digest).await.unwrap(),
        DeleteOutcome::Unknown
    );
    assert!(store.find_blob(&there, &digest).await.unwrap().is_some());
    assert_eq!(blob(store, &here, "linked").await, digest);
    assert!(
        store.find_blob(&here, &digest).await.unwrap().is_some(),
        "a push brings it back"
    );
}

async fn names_are_in_one_place_and_only_doomed_ones_are_handed_out(store: &dyn MetadataStore) {
    let here = repo("names");
    let digest = Digest::sha256(b"twice");
    let (first_key, second_key) = (new_key(&digest), new_key(&digest));
    let (first, first_stored) = session(store, &here, closing(digest, &first_key)).await;
    let (second, second_stored) = session(store, &here, closing(digest, &second_key)).await;
    assert!(!first_stored && !second_stored);
    let commit = |upload, key: &ObjectName| CommitBlob {
        upload,
        epoch: 1,
        repository: here.clone(),
        digest,
        size: 5,
        key: Some(key.clone()),
    };
    // Both uploaded the same bytes at once: both succeed, one object is kept.
    assert_eq!(
        store.commit_blob(commit(first, &first_key)).await.unwrap(),
        CommitOutcome::Committed
    );
    assert_eq!(
        store.commit_blob(commit(second, &second_key)).await.unwrap(),
        CommitOutcome::Committed
    );
    assert_eq!(
        store.find_blob(&here, &digest).await.unwrap().unwrap().key,
        first_key
    );
    assert_eq!(store.claim_doomed(10).await.unwrap(), [second_key.clone()]);
    assert_eq!(store.claim_doomed(10).await.unwrap(), [], "it is claimed");
    store.forget_doomed(&[second_key]).await.unwrap();

    assert_eq!(
        store.commit_blob(commit(first, &first_key)).await.unwrap(),
        CommitOutcome::UploadUnknown
    );
    let missing = Digest::sha256(b"never stored");
    let (third, _) = session(store, &here, closing(missing, &new_key(&missing))).await;
    let link_only = CommitBlob {
        digest: missing,
        key: None,
        ..commit(third, &first_key)
    };
    assert_eq!(
        store.commit_blob(link_only).await.unwrap(),
        CommitOutcome::NotStored
    );

    // A cancelled session's name is doomed at once; a name that nobody knows is doomed late; a used one never.
    let key = new_key(&missing);
    let (fourth, _) = session(store, &here, closing(missing, &key)).await;
    assert!(store.cancel_upload(fourth, &here).await.unwrap());
    assert_eq!(store.claim_doomed(10).await.unwrap(), [key.clone()]);
    let orphan = ObjectName::new("blobs/orphan");
    assert_eq!(
        store
            .doom_orphans(&[first_key, orphan.clone(), key.clone()])
            .await
            .unwrap(),
        1
    );
    assert_eq!(store.doom_orphans(&[orphan]).await.unwrap(), 0);
    assert_eq!(store.claim_doomed(10).await.unwrap(), []);
    store.forget_doomed(&[key]).await.unwrap();

    assert_eq!(store.without_session(&[third, fourth]).await.unwrap(), [fourth]);
    assert_eq!(store.expire_uploads(10).await.unwrap(), [], "nothing is old yet");
}

async fn manifests_need_what_they_refer_to(store: &dyn MetadataStore) {
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

async fn tags_move_and_go(store: &dyn MetadataStore) {
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
        store.delete_manifest(&here, &one, "tester").await.unwrap(),
        DeleteOutcome::Deleted
    );
    assert_eq!(store.resolve_tag(&here, &tag("a")).await.unwrap(), None);
    assert_eq!(store.list_tags(&here, None, 10).await.unwrap(), Some(vec![]));
}

async fn deletions_respect_references(store: &dyn MetadataStore) {
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
        store.delete_manifest(&here, &held, "tester").await.unwrap(),
        DeleteOutcome::ReferencedBy(index)
    );
    assert_eq!(
        store.delete_manifest(&here, &index, "tester").await.unwrap(),
        DeleteOutcome::Deleted
    );
    assert_eq!(
        store.delete_manifest(&here, &held, "tester").await.unwrap(),
        DeleteOutcome::Deleted
    );
    assert_eq!(
        store.delete_manifest(&here, &held, "tester").await.unwrap(),
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

async fn pages_follow_each_other(store: &dyn MetadataStore) {
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

async fn referrers_are_ordered_and_filtered(store: &dyn MetadataStore) {
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
        .delete_manifest(&here, &signatures[0].digest, "tester")
        .await
        .unwrap();
    assert_eq!(
        store.list_referrers(query(Some("sig"), None, 9)).await.unwrap(),
        signatures[1..]
    );
}

async fn cache_records_pin_their_blobs(store: &dyn MetadataStore) {
    let here = repo("cache");
    let unknown = Digest::sha256(b"unknown layer");
    let missing = store
        .put_cache_record(&here, "key", "{}", &[unknown])
        .await
        .unwrap();
    assert_eq!(missing, [unknown]);
    let layer = blob(store, &here, "cached layer").await;
    for result in ["{\"v\":1}", "{\"v\":2}"] {
        assert_eq!(
            store
                .put_cache_record(&here, "key", result, &[layer])
                .await
                .unwrap(),
            []
        );
    }
    let keys = ["other".to_owned(), "key".to_owned()];
    let found = store.find_cache_records(&here, &keys).await.unwrap();
    assert_eq!(found, [("key".to_owned(), "{\"v\":2}".to_owned())]);
    assert_eq!(
        store
            .find_cache_records(&repo("cache/other"), &keys)
            .await
            .unwrap(),
        []
    );

    store.put_memo(&here, "memo", "one").await.unwrap();
    store.put_memo(&here, "memo", "two").await.unwrap();
    let found = store
        .find_memos(&here, &["memo".to_owned(), "none".to_owned()])
        .await
        .unwrap();
    assert_eq!(found, [("memo".to_owned(), "two".to_owned())]);
}

async fn a_wide_manifest_is_stored_and_found(store: &dyn MetadataStore) {
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
