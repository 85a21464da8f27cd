//! [`CacheStore`]: the step cache, which the server keeps by repository.

use std::collections::BTreeMap;

use async_trait::async_trait;
use builder::services::{CacheKey, CacheStore, ServiceError, StepRecord};
use client::api::{CacheLookup, CacheRecord};
use client::api_client::Api;
use oci::{Digest, RepoName};
use serde::{Deserialize, Serialize};

pub(crate) struct Cache {
    pub(crate) api: Api,
    pub(crate) repository: RepoName,
}

/// The part of a record that the registry does not look into.
#[derive(Serialize, Deserialize)]
struct StepResult {
    diff_id: Digest,
    below: String,
    layer_time: i64,
    #[serde(default)]
    inputs: BTreeMap<String, String>,
}

#[async_trait]
impl CacheStore for Cache {
    async fn get(&self, keys: &[CacheKey]) -> Result<BTreeMap<CacheKey, StepRecord>, ServiceError> {
        let lookup = CacheLookup {
            keys: keys.iter().map(|key| key.0.clone()).collect(),
        };
        let found = self
            .api
            .find_cached(&self.repository, &lookup)
            .await
            .map_err(ServiceError::from_error)?;
        // A record that another version wrote is a miss, not a failure.
        let readable = |(key, record): (String, CacheRecord)| Some((CacheKey(key), read(record)?));
        Ok(found.records.into_iter().filter_map(readable).collect())
    }

    async fn put(&self, key: &CacheKey, record: &StepRecord) -> Result<(), ServiceError> {
        let record = write(record)?;
        self.api
            .put_cached(&self.repository, &key.0, &record)
            .await
            .map_err(ServiceError::from_error)
    }

    async fn memo_get(&self, keys: &[String]) -> Result<BTreeMap<String, String>, ServiceError> {
        let lookup = CacheLookup { keys: keys.to_vec() };
        let found = self.api.find_memos(&self.repository, &lookup).await;
        found.map(|found| found.memos).map_err(ServiceError::from_error)
    }

    async fn memo_put(&self, key: &str, value: &str) -> Result<(), ServiceError> {
        self.api
            .put_memo(&self.repository, key, value)
            .await
            .map_err(ServiceError::from_error)
    }
}

fn read(record: CacheRecord) -> Option<StepRecord> {
    let StepResult {
        diff_id,
        below,
        layer_time,
        inputs,
    } = serde_json::from_value(record.result).ok()?;
    Some(StepRecord {
        layer: record.layer,
        diff_id,
        below,
        layer_time,
        inputs,
    })
}

fn write(record: &StepRecord) -> Result<CacheRecord, ServiceError> {
    let StepRecord {
        layer,
        diff_id,
        below,
        layer_time,
        inputs,
    } = record.clone();
    let result = serde_json::to_value(StepResult {
        diff_id,
        below,
        layer_time,
        inputs,
    });
    Ok(CacheRecord {
        layer,
        result: result.map_err(ServiceError::from_error)?,
    })
}

#[cfg(test)]
mod tests {
    use oci::Descriptor;

    use super::*;

    #[test]
    fn records_survive_the_registry_and_unknown_ones_are_misses() {
        let digest = Digest::sha256(b"layer");
        let record = StepRecord {
            layer: Descriptor::new("application/vnd.oci.image.layer.v1.tar+gzip", digest, 5),
            diff_id: Digest::sha256(b"tar"),
            below: "scratch".to_owned(),
            layer_time: 1_700_000_000,
            inputs: BTreeMap::from([("command".into(), "x".into())]),
        };
        let mut stored = write(&record).unwrap();
        assert_eq!(read(stored.clone()), Some(record));
        stored.result = serde_json::json!({"format": 2});
        assert_eq!(read(stored), None);
    }
}
