//! The conformance suite over SQLite and S3.

use crate::conformance::{DEV_SPARSE, EXTRAS, run_suite};
use crate::harness::s3::Gateway;

#[test]
fn suite_1_1_passes_with_nothing_skipped() {
    let gateway = Gateway::start();
    let mut server = gateway.serve(&[]);
    let mut settings = vec![("OCI_VERSION", "1.1")];
    settings.extend(EXTRAS.map(|name| (name, "true")));
    let counts = run_suite(&server, &settings);
    counts.assert_clean();
    server.assert_healthy();
}

#[test]
fn suite_dev_passes_with_sparse_indexes() {
    let gateway = Gateway::start();
    let mut server = gateway.serve(&["LAYERYARD_SPARSE_INDEXES=true"]);
    run_suite(&server, &DEV_SPARSE).assert_clean();
    server.assert_healthy();
}
