//! Uploads, blobs, links, cache records.

use oci::{Algorithm, Digest, Hasher};

use super::*;

pub(super) async fn sessions_have_one_writer_and_move_forward(store: &dyn MetadataStore) {
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
        notes: None,
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

pub(super) async fn a_closed_session_makes_a_blob_visible_in_its_repository_alone(store: &dyn MetadataStore) {
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

pub(super) async fn names_are_in_one_place_and_only_doomed_ones_are_handed_out(store: &dyn MetadataStore) {
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
    assert_eq!(claimed(store).await, std::slice::from_ref(&second_key));
    assert_eq!(claimed(store).await, [], "it is claimed");
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
    assert_eq!(claimed(store).await, std::slice::from_ref(&key));
    let orphan = ObjectName::new("blobs/orphan");
    assert_eq!(
        store
            .doom_orphans(&[first_key, orphan.clone(), key.clone()])
            .await
            .unwrap(),
        1
    );
    assert_eq!(store.doom_orphans(&[orphan]).await.unwrap(), 0);
    assert_eq!(claimed(store).await, []);
    store.forget_doomed(&[key]).await.unwrap();

    assert_eq!(store.without_session(&[third, fourth]).await.unwrap(), [fourth]);
    assert_eq!(store.expire_uploads(10).await.unwrap(), [], "nothing is old yet");
}

async fn claimed(store: &dyn MetadataStore) -> Vec<ObjectName> {
    let claimed = store.claim_doomed(10).await.unwrap();
    claimed.into_iter().map(|doomed| doomed.key).collect()
}

pub(super) async fn what_a_store_notes_is_kept_and_its_name_with_it(store: &dyn MetadataStore) {
    let here = repo("notes");
    let notes = |text: &str| UploadNotes::from_bytes(text.as_bytes().to_vec());
    let doomed = async || {
        let claimed = store.claim_doomed(10).await.unwrap();
        let keys: Vec<ObjectName> = claimed.into_iter().map(|doomed| doomed.key).collect();
        store.forget_doomed(&keys).await.unwrap();
        keys
    };
    let digest = Digest::sha256(b"noted");
    let (first_key, parts_key) = (new_key(&digest), ObjectName::new("d/noted"));
    let (id, _) = session(store, &here, closing(digest, &first_key)).await;
    assert!(
        store
            .note_upload(id, 1, Some(parts_key.clone()), notes("begun"))
            .await
            .unwrap()
    );
    assert_eq!(doomed().await, [first_key], "the name that is not used any more");
    assert!(store.note_upload(id, 1, None, notes("id")).await.unwrap());
    assert!(!store.note_upload(id, 2, None, notes("late")).await.unwrap());
    let checkpoint = |epoch, notes| Checkpoint {
        id,
        epoch,
        offset: 5,
        hash_state: Some(Hasher::new(Algorithm::Sha256).save()),
        notes,
        release: true,
    };
    assert!(
        store
            .checkpoint_upload(checkpoint(1, Some(notes("part"))))
            .await
            .unwrap()
    );
    let claim = ClaimUpload {
        id,
        repository: here.clone(),
        offset: Some(5),
        closing: closing(digest, &new_key(&digest)),
    };
    let ClaimOutcome::Claimed(state) = store.claim_upload(claim).await.unwrap() else {
        panic!("it was released")
    };
    assert_eq!(state.notes, Some(notes("part")));
    assert!(
        store
            .checkpoint_upload(checkpoint(state.epoch, None))
            .await
            .unwrap()
    );
    let found = store.find_upload(id, &here).await.unwrap().unwrap();
    assert_eq!(found.notes, Some(notes("part")), "nothing new to note");
    assert_eq!(doomed().await, [], "bytes are on their way to the name");

    // Somebody else was first: the parts are not needed.
    assert_eq!(blob(store, &here, "noted").await, digest);
    let commit = CommitBlob {
        upload: id,
        epoch: state.epoch,
        repository: here.clone(),
        digest,
        size: 5,
        key: None,
    };
    assert_eq!(store.commit_blob(commit).await.unwrap(), CommitOutcome::Committed);
    assert_eq!(doomed().await, [parts_key]);
}

pub(super) async fn cache_records_pin_their_blobs(store: &dyn MetadataStore) {
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
