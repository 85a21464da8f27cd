//! What collection did and what waits for it.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::metadata::collection::{ReviewQueue, Reviewed};

#[derive(Clone, Default)]
pub(crate) struct CollectionMetrics {
    bytes_freed: Counter,
    objects_freed: Counter,
    bytes_doomed: Counter,
    verdicts: Family<VerdictLabel, Counter>,
    queue: Family<KindLabel, Gauge>,
    oldest_seconds: Gauge,
    paused: Gauge,
}

#[derive(Clone, Copy)]
pub(super) enum What {
    Manifest,
    Blob,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabel {
    kind: &'static str,
    /// `removed`, or the reason for which it is kept.
    verdict: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

impl CollectionMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let mut counter =
            |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        counter("gc_freed_bytes", "Bytes of deleted blobs", &self.bytes_freed);
        counter("gc_freed_objects", "Deleted objects", &self.objects_freed);
        counter(
            "gc_doomed_bytes",
            "Bytes of blobs that nothing needs any more; deleted after a delay",
            &self.bytes_doomed,
        );
        registry.register(
            "gc_reviews",
            "Reviewed manifests and blobs, by what became of them",
            self.verdicts.clone(),
        );
        registry.register(
            "gc_queue",
            "Reviews that are due (at most 100000 are counted)",
            self.queue.clone(),
        );
        registry.register(
            "gc_queue_oldest_seconds",
            "For how long the oldest review has been due",
            self.oldest_seconds.clone(),
        );
        registry.register(
            "gc_paused",
            "1 while collection waits to be confirmed",
            self.paused.clone(),
        );
    }

    /// The bytes of an object are deleted.
    pub(in crate::service) fn freed(&self, size: Option<u64>) {
        self.objects_freed.inc();
        self.bytes_freed.inc_by(size.unwrap_or(0));
    }

    pub(super) fn reviewed(&self, what: What, reviewed: &Reviewed) {
        let count = |verdict, by| {
            let label = VerdictLabel {
                kind: what.word(),
                verdict,
            };
            self.verdicts.get_or_create(&label).inc_by(by);
        };
        if !reviewed.removed.is_empty() {
            count("removed", reviewed.removed.len() as u64);
        }
        for word in &reviewed.kept {
            count(word, 1);
        }
        self.bytes_doomed.inc_by(reviewed.doomed_bytes);
    }

    pub(super) fn queue(&self, queue: &ReviewQueue) {
        let set = |what: What, length: u64| {
            let label = KindLabel { kind: what.word() };
            self.queue
                .get_or_create(&label)
                .set(i64::try_from(length).unwrap_or(i64::MAX));
        };
        set(What::Manifest, queue.manifests);
        set(What::Blob, queue.links);
        let oldest = i64::try_from(queue.oldest_micros / 1_000_000).unwrap_or(i64::MAX);
        self.oldest_seconds.set(oldest);
    }

    pub(super) fn paused(&self, paused: bool) {
        self.paused.set(i64::from(paused));
    }
}

impl What {
    fn word(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Blob => "blob",
        }
    }
}
