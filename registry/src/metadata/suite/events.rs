//! The outbox and deliveries, and blobs that are verified.

use super::*;

/// Every change is told once, in order, and forgotten when all who want it have it.
pub(super) async fn changes_are_told_and_forgotten(store: &dyn MetadataStore) {
    loop {
        let earlier = store.events_to_journal(100).await.unwrap();
        if earlier.is_empty() {
            break;
        }
        let ids: Vec<i64> = earlier.iter().map(|event| event.id).collect();
        store.mark_journaled(&ids, 1, true).await.unwrap();
    }
    let repository = repo("told");
    let mut put = manifest(&repository, "told");
    put.tags = vec![tag("one"), tag("two")];
    let bytes = put.bytes.clone();
    let digest = stored(store, put).await;
    assert!(
        store
            .delete_tag(&repository, &tag("one"), "tester")
            .await
            .unwrap()
    );
    let events = store.events_to_journal(10).await.unwrap();
    assert_eq!(events.len(), 2);
    assert!(events[0].id < events[1].id);
    assert_eq!(events[0].payload.as_ref(), Some(&bytes));
    match &events[0].change {
        Change::Push {
            digest: pushed, tags, ..
        } => assert_eq!((pushed, tags.len()), (&digest, 2)),
        other => panic!("{other:?}"),
    }
    assert!(matches!(&events[1].change, Change::Untag { tag, .. } if tag.as_str() == "one"));
    let position = store.journal_position().await.unwrap();
    assert_eq!(position.last_event, events[1].id);

    // The journal has them, webhooks not yet.
    let ids: Vec<i64> = events.iter().map(|event| event.id).collect();
    store.mark_journaled(&ids, 7, false).await.unwrap();
    assert_eq!(store.journal_position().await.unwrap().head, 7);
    assert!(store.events_to_journal(10).await.unwrap().is_empty());
    assert_eq!(store.events_to_fan_out(10).await.unwrap(), events);
    let deliveries = vec![
        ("ci".to_owned(), "{}".to_owned()),
        ("other".to_owned(), "{}".to_owned()),
    ];
    store.fan_out(&ids, deliveries).await.unwrap();
    assert!(store.events_to_fan_out(10).await.unwrap().is_empty());
    let due = store.due_deliveries("ci", 10).await.unwrap();
    assert_eq!((due.len(), due[0].body.as_str(), due[0].attempts), (1, "{}", 0));
    store.retry_delivery(due[0].id, 3_600_000_000).await.unwrap();
    assert!(store.due_deliveries("ci", 10).await.unwrap().is_empty());
    store.retry_delivery(due[0].id, -1).await.unwrap();
    assert_eq!(store.due_deliveries("ci", 10).await.unwrap()[0].attempts, 2);
    store.finish_delivery(due[0].id).await.unwrap();
    assert!(store.due_deliveries("ci", 10).await.unwrap().is_empty());
    assert_eq!(store.due_deliveries("other", 10).await.unwrap().len(), 1);

    let page = store.manifests_after(0, 1000).await.unwrap();
    let (_, found) = page
        .iter()
        .find(|(_, found)| found.repository == repository)
        .unwrap();
    assert_eq!(
        (found.tags.as_slice(), &found.payload),
        (&[tag("two")][..], &bytes)
    );
}

/// A quarantined blob counts as not there, and a push of it heals it.
pub(super) async fn a_quarantined_blob_is_healed_by_a_push(store: &dyn MetadataStore) {
    let repository = repo("verified");
    let digest = blob(store, &repository, "to be verified").await;
    let found = store.blob_to_verify(&digest).await.unwrap().unwrap();
    let page = store.blobs_after(found.id - 1, 1).await.unwrap();
    assert_eq!(page, std::slice::from_ref(&found));
    store.mark_verified(&[found.id]).await.unwrap();
    assert!(!store.quarantine(found.id, &new_key(&digest)).await.unwrap());
    assert!(store.quarantine(found.id, &found.key).await.unwrap());
    assert!(store.find_blob(&repository, &digest).await.unwrap().is_none());
    assert!(store.blob_to_verify(&digest).await.unwrap().is_none());
    blob(store, &repository, "to be verified").await;
    let healed = store.find_blob(&repository, &digest).await.unwrap().unwrap();
    assert_ne!(healed.key, found.key);

    assert_eq!(store.progress("suite").await.unwrap(), None);
    store.set_progress("suite", "1").await.unwrap();
    store.set_progress("suite", "2").await.unwrap();
    assert_eq!(store.progress("suite").await.unwrap().as_deref(), Some("2"));
}
