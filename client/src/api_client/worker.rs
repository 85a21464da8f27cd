//! Calls of workers: jobs, a build's events and result, the step cache, contexts.

use std::collections::BTreeMap;

use futures::TryStreamExt as _;
use http::Method;
use oci::{Digest, RepoName};
use reqwest::StatusCode;

use super::{Api, long_poll, read_json, with_json};
use crate::api::{
    BuildOutcome, CacheFound, CacheLookup, CacheRecord, Control, EventBatch, Job, LeaseRequest, MemosFound,
};
use crate::error::Error;
use crate::registry::ByteStream;

const NOTHING: Option<&()> = None;
/// How long the server holds a lease request back when there is no job.
const LEASE_WAIT_SECONDS: u64 = 30;

impl Api {
    /// Waits for a job; `None` after half a minute without one.
    pub async fn lease(&self, worker: &LeaseRequest) -> Result<Option<Job>, Error> {
        let mut call = self.call(Method::POST, "/api/v1/jobs/lease", "a job");
        call.timeout = Some(long_poll(LEASE_WAIT_SECONDS));
        let place = self.transport.place(call.what.clone());
        with_json(&mut call, &place, worker)?;
        let expected = [StatusCode::OK, StatusCode::NO_CONTENT];
        let answer = self.transport.expect(call, &expected).await?;
        match answer.status() {
            StatusCode::NO_CONTENT => Ok(None),
            _ => read_json(&place, answer).await.map(Some),
        }
    }

    /// Sends events; a batch that is sent again (same `first`) is taken once.
    pub async fn send_events(&self, build: &str, batch: &EventBatch) -> Result<Control, Error> {
        let path = format!("/api/v1/builds/{build}/events");
        let call = self.call(Method::POST, &path, format!("events of build {build}"));
        self.exchange(call, Some(batch), &[StatusCode::OK]).await
    }

    /// Waits up to `wait_seconds` for the build to be cancelled.
    pub async fn control(&self, build: &str, wait_seconds: u64) -> Result<Control, Error> {
        let path = format!("/api/v1/builds/{build}/control");
        let mut call = self.call(Method::GET, &path, format!("control of build {build}"));
        call.url.set_query(Some(&format!("wait_seconds={wait_seconds}")));
        call.timeout = Some(long_poll(wait_seconds));
        self.exchange(call, NOTHING, &[StatusCode::OK]).await
    }

    pub async fn send_result(&self, build: &str, outcome: &BuildOutcome) -> Result<(), Error> {
        let path = format!("/api/v1/builds/{build}/result");
        let call = self.call(Method::POST, &path, format!("result of build {build}"));
        self.tell(call, Some(outcome), &[StatusCode::NO_CONTENT]).await
    }

    /// Downloads a build context.
    pub async fn context(&self, id: &str) -> Result<ByteStream, Error> {
        let path = format!("/api/v1/contexts/{id}");
        let call = self.call(Method::GET, &path, format!("context {id}"));
        let place = self.transport.place(call.what.clone());
        let answer = self.transport.expect(call, &[StatusCode::OK]).await?;
        let stream = answer
            .bytes_stream()
            .map_err(move |source| Error::unreachable(place.clone(), source));
        Ok(Box::pin(stream))
    }

    pub async fn find_cached(
        &self,
        repository: &RepoName,
        lookup: &CacheLookup,
    ) -> Result<CacheFound, Error> {
        let path = format!("/api/v1/repositories/{repository}/cache/lookup");
        let call = self.call(Method::POST, &path, format!("step cache of {repository}"));
        self.exchange(call, Some(lookup), &[StatusCode::OK]).await
    }

    pub async fn put_cached(
        &self,
        repository: &RepoName,
        key: &str,
        record: &CacheRecord,
    ) -> Result<(), Error> {
        let path = format!("/api/v1/repositories/{repository}/cache/{key}");
        let call = self.call(Method::PUT, &path, format!("step cache of {repository}"));
        self.tell(call, Some(record), &[StatusCode::NO_CONTENT]).await
    }

    pub async fn find_memos(&self, repository: &RepoName, lookup: &CacheLookup) -> Result<MemosFound, Error> {
        let path = format!("/api/v1/repositories/{repository}/memos/lookup");
        let call = self.call(Method::POST, &path, format!("memos of {repository}"));
        let mut names: BTreeMap<String, String> = lookup
            .keys
            .iter()
            .map(|key| (memo_key(key), key.clone()))
            .collect();
        let hashed = CacheLookup {
            keys: names.keys().cloned().collect(),
        };
        let found: MemosFound = self.exchange(call, Some(&hashed), &[StatusCode::OK]).await?;
        let named = found
            .memos
            .into_iter()
            .filter_map(|(key, value)| Some((names.remove(&key)?, value)));
        Ok(MemosFound {
            memos: named.collect(),
        })
    }

    pub async fn put_memo(&self, repository: &RepoName, key: &str, value: &str) -> Result<(), Error> {
        let path = format!("/api/v1/repositories/{repository}/memos/{}", memo_key(key));
        let call = self.call(Method::PUT, &path, format!("memos of {repository}"));
        self.tell(call, Some(&value), &[StatusCode::NO_CONTENT]).await
    }
}

/// Memo keys are free text, paths are not: on the wire stands the key's hash.
fn memo_key(key: &str) -> String {
    Digest::sha256(key.as_bytes()).hex()
}
