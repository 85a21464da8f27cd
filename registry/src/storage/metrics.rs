//! How long a store's calls take, how many fail, how much it can still take.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Seconds; from a file in the page cache to a bucket that hangs.
const BUCKETS: [f64; 9] = [0.000_05, 0.000_5, 0.002, 0.01, 0.05, 0.25, 1.0, 5.0, 30.0];

#[derive(Clone)]
pub(crate) struct StoreMetrics {
    seconds: Family<Operation, Histogram, fn() -> Histogram>,
    failures: Family<Operation, Counter>,
    free_bytes: Family<Store, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    store: &'static str,
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Store {
    store: &'static str,
}

impl StoreMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "store_seconds",
            "Time that calls of the blob store take; of reads until the first byte",
            self.seconds.clone(),
        );
        registry.register(
            "store_failures",
            "Calls of the blob store that failed",
            self.failures.clone(),
        );
        registry.register(
            "store_free_bytes",
            "What the blob store's file system has left",
            self.free_bytes.clone(),
        );
    }

    pub(super) fn seconds(&self, store: &'static str, operation: &'static str) -> Histogram {
        let labels = Operation { store, operation };
        self.seconds.get_or_create(&labels).clone()
    }

    pub(super) fn failures(&self, store: &'static str, operation: &'static str) -> Counter {
        let labels = Operation { store, operation };
        self.failures.get_or_create(&labels).clone()
    }

    pub(super) fn set_free(&self, store: &'static str, bytes: u64) {
        let gauge = self.free_bytes.get_or_create(&Store { store });
        gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

impl Default for StoreMetrics {
    fn default() -> Self {
        Self {
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            failures: Family::default(),
            free_bytes: Family::default(),
        }
    }
}
