//! Leases.

use std::time::Duration;

use super::*;

pub(super) async fn a_lease_has_one_holder_and_counts_them(store: &dyn MetadataStore) {
    let hold = async |holder: &str, life_ms| {
        let life = Duration::from_millis(life_ms);
        store.hold_lease("job", holder, life).await.unwrap()
    };
    assert_eq!(hold("a", 60_000).await, Some(1));
    assert_eq!(hold("b", 60_000).await, None);
    assert_eq!(hold("a", 1).await, Some(1), "its own it extends or shortens");
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(
        hold("b", 60_000).await,
        Some(2),
        "the next holder, the next epoch"
    );
    store.release_lease("job", "a").await.unwrap();
    assert_eq!(hold("a", 60_000).await, None, "only the holder gives it up");
    store.release_lease("job", "b").await.unwrap();
    assert_eq!(hold("a", 60_000).await, Some(3));
    store.release_lease("job", "a").await.unwrap();
    assert_eq!(
        hold("a", 60_000).await,
        Some(4),
        "it may have been another's meanwhile"
    );
}
