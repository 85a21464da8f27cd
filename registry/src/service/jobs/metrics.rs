//! When jobs ran, how long they took, how often they failed.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Default)]
pub(crate) struct JobMetrics {
    last_run: Family<Label, Gauge<f64, AtomicU64>>,
    duration: Family<Label, Gauge<f64, AtomicU64>>,
    runs: Family<Label, Counter>,
    failures: Family<Label, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    job: &'static str,
}

impl JobMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "job_last_run_timestamp_seconds",
            "When a background job ran last in this process",
            self.last_run.clone(),
        );
        registry.register(
            "job_last_run_seconds",
            "How long its last run took",
            self.duration.clone(),
        );
        registry.register("job_runs", "Runs of a background job", self.runs.clone());
        registry.register("job_failures", "Runs that failed", self.failures.clone());
    }

    pub(super) fn ran(&self, job: &'static str, took: Duration, succeeded: bool) {
        let label = Label { job };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last_run.get_or_create(&label).set(now.as_secs_f64());
        self.duration.get_or_create(&label).set(took.as_secs_f64());
        self.runs.get_or_create(&label).inc();
        let failures = self.failures.get_or_create(&label);
        if !succeeded {
            failures.inc();
        }
    }
}
