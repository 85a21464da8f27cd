//! Measurements from below the service. They belong to the process, as the disk and the database do.

use std::sync::LazyLock;

use prometheus_client::metrics::histogram::Histogram;

/// Seconds; from a commit without a sync to a stuck disk.
const BUCKETS: [f64; 9] = [0.000_2, 0.001, 0.002, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0];

/// How long changes wait for their commit.
pub(crate) static COMMITS: LazyLock<Histogram> = LazyLock::new(|| Histogram::new(BUCKETS));
