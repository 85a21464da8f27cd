//! Counters for Prometheus. Each one is looked up once and kept, so that counting a request takes two atomic
//! additions and one short lock.

use std::sync::OnceLock;
use std::time::Duration;

use http::{Method, StatusCode};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::route::Kind;
use crate::service::{CollectionMetrics, JobMetrics};
use crate::storage::StoreMetrics;
use crate::timings::COMMITS;

const KINDS: usize = 8;
const METHODS: usize = 7;
const CLASSES: usize = 6;

/// Seconds; from a cached manifest to a large upload.
const BUCKETS: [f64; 9] = [0.000_1, 0.000_5, 0.002, 0.01, 0.05, 0.25, 1.0, 10.0, 60.0];

pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Family<KindLabels, Histogram, fn() -> Histogram>,
    counters: [[[OnceLock<Counter>; CLASSES]; METHODS]; KINDS],
    histograms: [OnceLock<Histogram>; KINDS],
    pub(crate) connections: Gauge,
    /// Bytes of request bodies as they come.
    pub(super) received_bytes: Counter,
    sent_bytes: Counter,
    uploads: Gauge,
    /// Uploads that came while enough others were running.
    pub(crate) uploads_refused: Counter,
    /// What webhooks missed of what is told once.
    pub(crate) notices_dropped: Counter,
}

/// A request that brings a blob.
pub(super) struct RunningUpload(Gauge);

impl Drop for RunningUpload {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    resource: &'static str,
    method: &'static str,
    /// The first digit of the status.
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    resource: &'static str,
}

impl Metrics {
    pub(crate) fn new(jobs: &JobMetrics, collection: &CollectionMetrics, store: &StoreMetrics) -> Self {
        let mut registry = Registry::with_prefix("layeryard");
        jobs.register(&mut registry);
        collection.register(&mut registry);
        store.register(&mut registry);
        let requests = Family::default();
        registry.register("http_requests", "Answered requests", requests.clone());
        let durations: Family<KindLabels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(BUCKETS));
        registry.register(
            "http_request_seconds",
            "Time to the head of the answer",
            durations.clone(),
        );
        let connections = Gauge::default();
        registry.register("http_connections", "Open connections", connections.clone());
        let (received_bytes, sent_bytes, uploads) =
            (Counter::default(), Counter::default(), Gauge::default());
        registry.register(
            "http_received_bytes",
            "Bytes of request bodies",
            received_bytes.clone(),
        );
        registry.register(
            "http_sent_bytes",
            "Bytes of manifests, blobs and lists, when they begin to be sent",
            sent_bytes.clone(),
        );
        registry.register("uploads_running", "Requests that bring blobs", uploads.clone());
        let uploads_refused = Counter::default();
        registry.register(
            "uploads_refused",
            "Uploads that came while as many ran as may",
            uploads_refused.clone(),
        );
        registry.register(
            "database_commit_seconds",
            "Time that a change waits for its commit",
            COMMITS.clone(),
        );
        let notices_dropped = Counter::default();
        registry.register(
            "webhook_notices_dropped",
            "Pulls, mounts and single blobs that a webhook was not told of",
            notices_dropped.clone(),
        );
        Self {
            registry,
            requests,
            durations,
            counters: Default::default(),
            histograms: Default::default(),
            connections,
            received_bytes,
            sent_bytes,
            uploads,
            uploads_refused,
            notices_dropped,
        }
    }

    /// Counts an upload as running until the guard is dropped.
    pub(super) fn upload(&self) -> RunningUpload {
        self.uploads.inc();
        RunningUpload(self.uploads.clone())
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.sent_bytes.inc_by(bytes);
    }

    pub(super) fn request(&self, kind: Kind, method: &Method, status: StatusCode, took: Duration) {
        let (kind_index, resource) = resource(kind);
        let (method_index, method) = method_label(method);
        let (class_index, class) = class(status);
        let labels = || RequestLabels {
            resource,
            method,
            class,
        };
        self.counters[kind_index][method_index][class_index]
            .get_or_init(|| self.requests.get_or_create(&labels()).clone())
            .inc();
        self.histograms[kind_index]
            .get_or_init(|| self.durations.get_or_create(&KindLabels { resource }).clone())
            .observe(took.as_secs_f64());
    }

    pub(super) fn render(&self) -> String {
        let mut out = String::new();
        match text::encode(&mut out, &self.registry) {
            Ok(()) => out,
            // Writing to a string can't fail.
            Err(_) => String::new(),
        }
    }
}

fn resource(kind: Kind) -> (usize, &'static str) {
    match kind {
        Kind::Base => (0, "base"),
        Kind::Catalog => (1, "catalog"),
        Kind::Tags => (2, "tags"),
        Kind::Manifest => (3, "manifest"),
        Kind::Blob => (4, "blob"),
        Kind::Upload => (5, "upload"),
        Kind::Referrers => (6, "referrers"),
        Kind::Other => (7, "other"),
    }
}

fn method_label(method: &Method) -> (usize, &'static str) {
    match *method {
        Method::GET => (0, "GET"),
        Method::HEAD => (1, "HEAD"),
        Method::POST => (2, "POST"),
        Method::PATCH => (3, "PATCH"),
        Method::PUT => (4, "PUT"),
        Method::DELETE => (5, "DELETE"),
        _ => (6, "other"),
    }
}

fn class(status: StatusCode) -> (usize, &'static str) {
    match status.as_u16() / 100 {
        1 => (1, "1"),
        2 => (2, "2"),
        3 => (3, "3"),
        4 => (4, "4"),
        5 => (5, "5"),
        _ => (0, "other"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_resource_method_and_class() {
        let metrics = Metrics::new(
            &JobMetrics::default(),
            &CollectionMetrics::default(),
            &StoreMetrics::default(),
        );
        for status in [StatusCode::OK, StatusCode::PARTIAL_CONTENT, StatusCode::NOT_FOUND] {
            metrics.request(Kind::Blob, &Method::GET, status, Duration::from_millis(1));
        }
        let text = metrics.render();
        for line in [
            r#"layeryard_http_requests_total{resource="blob",method="GET",class="2"} 2"#,
            r#"layeryard_http_requests_total{resource="blob",method="GET",class="4"} 1"#,
            r#"layeryard_http_request_seconds_count{resource="blob"} 3"#,
        ] {
            assert!(text.contains(line), "{line} not in {text}");
        }
    }
}
