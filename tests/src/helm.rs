//! The Helm chart: linted, rendered as an installation would, and what is rendered is checked against Kubernetes' schemas.

use std::fs;
use std::path::PathBuf;

use crate::harness::paths;
use crate::harness::tool::Tool;

/// As in versions.env.
const KUBERNETES: [&str; 2] = ["1.27.0", "1.37.0"];

/// Sets of values that take every branch.
const VALUES: [&[&str]; 3] = [
    &[],
    &[
        "ingress.enabled=true",
        "ingress.tlsSecret=tls",
        "ingress.className=nginx",
    ],
    &[
        "replicas=3",
        "database.existingSecret=database",
        "s3.bucket=blobs",
        "s3.endpoint=http://s3:7070",
        "s3.pathStyle=true",
        "s3.existingSecret=bucket",
        "persistence.storageClass=fast",
    ],
];

#[test]
fn the_chart_is_valid_and_so_is_what_it_renders() {
    for values in VALUES {
        helm("lint").arg("--strict").args(sets(values)).ok();
        let scratch = paths::scratch();
        let rendered = scratch.path().join("rendered.yaml");
        let objects = render(values);
        fs::write(&rendered, &objects).expect("write what was rendered");
        for version in KUBERNETES {
            let schemas = paths::peers().join(format!("kubernetes-schemas/{version}"));
            assert!(
                schemas.is_dir(),
                "no schemas: run tests/peers/install.sh kubernetes"
            );
            let report = Tool::peer("kubeconform", "kubernetes")
                .args([
                    "-strict",
                    "-summary",
                    "-kubernetes-version",
                    version,
                    "-schema-location",
                ])
                .arg(format!(
                    "{}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json",
                    schemas.display()
                ))
                .arg(&rendered)
                .ok();
            assert!(
                report.contains("Invalid: 0, Errors: 0, Skipped: 0"),
                "Kubernetes {version}, {values:?}: {report}"
            );
        }
    }
}

/// The server that the chart starts takes the configuration that the chart makes.
#[test]
fn the_server_takes_the_charts_configuration() {
    for values in VALUES {
        let objects = render(values);
        let begin = "  layeryard.toml: |\n";
        let (_, rest) = objects.split_once(begin).expect("a configuration");
        let lines = rest
            .lines()
            .take_while(|line| line.starts_with("    ") || line.is_empty());
        let toml: String = lines.flat_map(|line| [line.trim(), "\n"]).collect();
        let scratch = paths::scratch();
        let file = scratch.path().join("layeryard.toml");
        fs::write(&file, &toml).expect("write the configuration");
        let mut check = Tool::layeryard().args(["config", "check", "--config"]).arg(&file);
        if toml.contains("[storage") {
            check = check
                .env("LAYERYARD_DATABASE__URL", "postgres://user:password@host/name")
                .env("LAYERYARD_STORAGE__S3__ACCESS_KEY_ID", "key")
                .env("LAYERYARD_STORAGE__S3__SECRET_ACCESS_KEY", "secret");
        }
        check.ok();
    }
}

#[test]
fn replicas_without_shared_state_are_refused() {
    let ran = helm("template").args(["--set", "replicas=2"]).fails();
    assert!(ran.stderr.contains("database.existingSecret"), "{ran}");
}

fn render(values: &[&str]) -> String {
    helm("template").args(sets(values)).ok()
}

fn helm(command: &str) -> Tool {
    let chart: PathBuf = paths::root().join("deploy/helm/layeryard");
    let scratch = paths::peers();
    let helm = Tool::peer("helm", "kubernetes")
        .env("HELM_CACHE_HOME", scratch.join("helm"))
        .arg(command);
    match command {
        "template" => helm.arg("release").arg(chart),
        _ => helm.arg(chart),
    }
}

fn sets(values: &[&str]) -> Vec<String> {
    values
        .iter()
        .flat_map(|value| ["--set".to_owned(), (*value).to_owned()])
        .collect()
}
