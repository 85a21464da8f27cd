//! The contract suite, plans and faults on a real server.

mod faults;
mod generations;
mod locks;
mod plans;
pub(crate) mod server;
mod silence;

use std::time::Duration;

use super::*;
use crate::config::{DatabaseConfig, Limits};
use crate::metadata::{MetadataError, Upkeep, suite};
use server::TestServer;

pub(crate) async fn open(url: &str) -> Result<Postgres, MetadataError> {
    Postgres::open(
        url,
        &DatabaseConfig::default(),
        "boot".to_owned(),
        &Limits::default(),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_passes_the_contract_suite() {
    let url = TestServer::shared().database().await;
    let store = open(&url).await.unwrap();
    suite::run(&store).await;
    store.close().await.unwrap();
    let first = store.opened().await.unwrap();
    let second = open(&url).await.unwrap().opened().await.unwrap();
    assert_eq!(first.store_uuid, second.store_uuid);
    assert!(!second.after_power_cut);
}

async fn open_with(url: &str, limits: &Limits) -> Postgres {
    Postgres::open(url, &DatabaseConfig::default(), "boot".to_owned(), limits)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_collects_garbage_as_the_contract_says() {
    let url = TestServer::shared().database().await;
    suite::collection::run(&open_with(&url, &suite::collection::limits()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn collection_races_with_everything() {
    let url = TestServer::shared().database().await;
    let limits = suite::race::limits(Duration::from_millis(100));
    let store = Arc::new(open_with(&url, &limits).await);
    suite::race::run(store, suite::race::duration()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_at_once_migrate_once() {
    let url = TestServer::shared().database().await;
    let opened = futures::future::join_all((0..5).map(|_| open(&url))).await;
    let mut uuids = Vec::new();
    for store in opened {
        uuids.push(store.unwrap().opened().await.unwrap().store_uuid);
    }
    uuids.dedup();
    assert_eq!(uuids.len(), 1);
}
