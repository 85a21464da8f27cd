//! The OCI distribution conformance suite, newest version.

use std::fs;

use crate::harness::paths;
use crate::harness::server::Server;
use crate::harness::tool::Tool;

/// What `OCI_VERSION=1.1` leaves off although the server has it.
pub(crate) const EXTRAS: [&str; 3] = [
    "OCI_API_BLOBS_DIGEST_HEADER",
    "OCI_API_MANIFESTS_DIGEST_HEADER",
    "OCI_API_BLOBS_UPLOAD_CANCEL",
];

/// Everything that the suite has.
pub(crate) const DEV_SPARSE: [(&str, &str); 2] = [("OCI_VERSION", "dev"), ("OCI_DATA_SPARSE", "true")];
const SPARSE_CONFIG: &str = "sparse_indexes = true\n";

#[test]
fn suite_1_1_passes_with_nothing_skipped() {
    let mut server = Server::start();
    run_suite(&server, &[("OCI_VERSION", "1.1")]).assert_clean();
    server.assert_healthy();
}

#[test]
fn suite_passes_with_optional_features() {
    let mut server = Server::start();
    let mut settings = vec![("OCI_VERSION", "1.1")];
    settings.extend(EXTRAS.map(|name| (name, "true")));
    run_suite(&server, &settings).assert_clean();
    server.assert_healthy();
}

#[test]
fn suite_dev_passes_with_sparse_indexes() {
    let mut server = Server::start_configured(SPARSE_CONFIG);
    run_suite(&server, &DEV_SPARSE).assert_clean();
    server.assert_healthy();
}

pub(crate) struct Counts {
    tests: u64,
    failures: u64,
    errors: u64,
    skipped: u64,
    report: String,
}

pub(crate) fn run_suite(server: &Server, settings: &[(&str, &str)]) -> Counts {
    run_suite_at(&server.host(), settings)
}

/// Against `HOST:PORT`.
pub(crate) fn run_suite_at(host: &str, settings: &[(&str, &str)]) -> Counts {
    let results = paths::scratch();
    let mut suite = Tool::peer("conformance", "conformance")
        .current_dir(results.path())
        .env("OCI_REGISTRY", host)
        .env("OCI_TLS", "disabled")
        .env("OCI_REPO1", "conformance/one")
        .env("OCI_REPO2", "conformance/two")
        .env("OCI_RESULTS_DIR", results.path());
    for (name, value) in settings {
        suite = suite.env(name, value);
    }
    let ran = suite.run();
    let junit = fs::read_to_string(results.path().join("junit.xml"))
        .unwrap_or_else(|error| panic!("the suite left no junit.xml ({error}): {ran}"));
    let head = &junit[junit.find("<testsuites").expect("a <testsuites> element")..];
    let head = &head[..head.find('>').expect("the element ends")];
    Counts {
        tests: attribute(head, "tests"),
        failures: attribute(head, "failures"),
        errors: attribute(head, "errors"),
        skipped: attribute(head, "skipped"),
        report: format!("{head}>\n{}", unusual(&ran.stdout, &ran.stderr)),
    }
}

impl Counts {
    /// Nothing failed and nothing was left out.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        let unclean = (self.failures, self.errors, self.skipped);
        assert_eq!(unclean, (0, 0, 0), "{}", self.report);
        assert!(self.tests >= 850, "only {} tests ran", self.tests);
    }
}

fn attribute(element: &str, name: &str) -> u64 {
    let Some((_, rest)) = element.split_once(&format!(" {name}=\"")) else {
        return 0;
    };
    rest.split('"')
        .next()
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("{name} in {element}"))
}

/// The lines that say what failed or was skipped; the whole report has thousands.
fn unusual(stdout: &str, stderr: &str) -> String {
    let telling = |line: &&str| line.contains("FAIL") || line.contains("Skip") || line.contains("rror");
    stdout
        .lines()
        .chain(stderr.lines())
        .filter(telling)
        .take(60)
        .collect::<Vec<_>>()
        .join("\n")
}
