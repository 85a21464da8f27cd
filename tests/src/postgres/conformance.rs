//! The conformance suite over PostgreSQL and S3.

use super::Backends;
use crate::conformance::{DEV_SPARSE, EXTRAS, run_suite};

#[test]
fn suite_1_1_passes_with_nothing_skipped() {
    let backends = Backends::start();
    let mut server = backends.serve(&[]);
    let mut settings = vec![("OCI_VERSION", "1.1")];
    settings.extend(EXTRAS.map(|name| (name, "true")));
    run_suite(&server, &settings).assert_clean();
    server.assert_healthy();
}

#[test]
fn suite_dev_passes_with_sparse_indexes() {
    let backends = Backends::start();
    let mut server = backends.serve(&["LAYERYARD_SPARSE_INDEXES=true"]);
    run_suite(&server, &DEV_SPARSE).assert_clean();
    server.assert_healthy();
}
