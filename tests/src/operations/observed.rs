//! What is watched from outside: metrics, the dashboard over them, the unit and the package.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::harness::image::Image;
use crate::harness::paths;
use crate::harness::server::Server;
use crate::harness::tool::Tool;

#[test]
fn every_metric_of_the_dashboard_is_measured() {
    let server = Server::start();
    let image = Image::small(9600);
    image.push(&server, "app", "v1");
    image.assert_on(&server, "app", "v1");
    server.request("GET", "/v2/app/manifests/none").send().expect(404);
    let metrics = server.request("GET", "/metrics").send().expect(200).body;
    let metrics = String::from_utf8(metrics).expect("text");
    let dashboard = paths::root().join("deploy/grafana/layeryard.json");
    let dashboard: Value =
        serde_json::from_slice(&fs::read(dashboard).expect("the dashboard")).expect("JSON");
    let mut names = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().expect("targets") {
            let expression = target["expr"].as_str().expect("an expression");
            let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            names.extend(words.filter(|word| word.starts_with("layeryard_")));
        }
    }
    assert!(names.len() > 10);
    for name in names {
        let measured = metrics
            .lines()
            .any(|line| line.split(['{', ' ']).next() == Some(name));
        assert!(
            measured,
            "{name} is on the dashboard and not in /metrics:\n{metrics}"
        );
    }
    let received: u64 = value(&metrics, "layeryard_http_received_bytes_total");
    let sent: u64 = image
        .blobs
        .iter()
        .chain([&image.manifest])
        .map(|blob| blob.len() as u64)
        .sum();
    assert_eq!(received, sent);
    assert_eq!(value(&metrics, "layeryard_uploads_running"), 0);
}

/// docs/metrics.md has what there is, and nothing else.
#[test]
fn every_metric_is_documented() {
    let server = Server::start();
    Image::small(9610).push(&server, "app", "v1");
    let measured: BTreeSet<String> = server
        .metrics()
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.rsplit_once(' '))
        .map(|(name, kind)| format!("| `{name}` | {kind} |"))
        .collect();
    let document = fs::read_to_string(paths::root().join("docs/metrics.md")).expect("the document");
    assert!(measured.len() > 20, "{measured:?}");
    for row in &measured {
        assert!(document.contains(row), "docs/metrics.md lacks {row}");
    }
    let source: String = walkdir::WalkDir::new(paths::root().join("registry/src"))
        .into_iter()
        .filter_map(|entry| fs::read_to_string(entry.expect("the source").path()).ok())
        .collect();
    for line in document.lines() {
        if let Some((name, _)) = line
            .strip_prefix("| `layeryard_")
            .and_then(|row| row.split_once('`'))
        {
            let quoted = format!("\"{name}\"");
            assert!(
                source.contains(&quoted),
                "docs/metrics.md has {name}, the server not"
            );
        }
    }
}

fn value(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find(|line| line.split(' ').next() == Some(name));
    let text = line.and_then(|line| line.split(' ').nth(1));
    text.and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("{name}:\n{metrics}"))
}

/// One object a line, with the request's id: the caller's own, or one that the answer tells.
#[test]
fn json_logs_have_the_requests_ids() {
    let mut server = Server::start_configured("[log]\nformat = \"json\"\n");
    let own = "caller-7 \"quoted\"";
    let absent = || server.request("GET", "/v2/app/manifests/absent");
    let answer = absent().header("X-Request-Id", own).send().expect(404);
    assert_eq!(answer.header("x-request-id"), Some(own));
    let answer = absent().send().expect(404);
    let given = answer.header("x-request-id").expect("an id").to_owned();
    server.stop();
    let log = server.log();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for id in [own, &given] {
        let line = lines.iter().find(|line| line["id"] == id);
        let line = line.unwrap_or_else(|| panic!("no request {id} in\n{log}"));
        assert_eq!(line["status"], 404, "{line}");
        assert_eq!(line["path"], "/v2/app/manifests/absent", "{line}");
        assert!(line["timestamp"].is_string() && line["micros"].is_u64(), "{line}");
    }
}

#[test]
fn the_package_has_a_unit_that_systemd_takes() {
    let out = paths::scratch();
    Tool::new(paths::root().join("deploy/debian/build.sh"))
        .arg(paths::layeryard())
        .arg(out.path())
        .ok();
    let package = fs::read_dir(out.path())
        .expect("the directory")
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .expect("a package");
    let root = out.path().join("root");
    Tool::debian("dpkg-deb")
        .arg("--extract")
        .arg(package)
        .arg(&root)
        .ok();
    let binary = root.join("usr/bin/layeryard");
    Tool::new(&binary)
        .args(["config", "check", "--config"])
        .arg(root.join("etc/layeryard/layeryard.toml"))
        .ok();
    // The paths that the unit names lie in the package's root here.
    let unit = fs::read_to_string(root.join("lib/systemd/system/layeryard.service")).expect("the unit");
    let here = out.path().join("layeryard.service");
    fs::write(
        &here,
        unit.replace("/usr/bin/layeryard", &binary.display().to_string()),
    )
    .expect("write the unit");
    let said = Tool::debian("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&here)
        .run();
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    assert!(!said.stderr.contains("layeryard.service"), "{}", said.stderr);
}

/// Every route of the source is in the description that the server serves.
#[test]
fn the_api_description_has_every_route() {
    let server = Server::start();
    let served = server
        .request("GET", "/api/v1/openapi.json")
        .send()
        .expect(200)
        .json();
    let described = served["paths"].as_object().expect("paths");
    for (path, methods) in described {
        for (method, operation) in methods.as_object().expect("methods") {
            assert!(operation["summary"].is_string(), "{method} {path} has no summary");
            assert!(
                operation["responses"].is_object(),
                "{method} {path} has no responses"
            );
        }
    }
    let mut seen = 0;
    for entry in walkdir::WalkDir::new(paths::root().join("registry/src/http")) {
        let entry = entry.expect("the source");
        // These lie beside /api/v1; a cache's path is taken apart by hand.
        if ["health.rs", "token.rs", "cache.rs"]
            .iter()
            .any(|name| entry.file_name() == *name)
        {
            continue;
        }
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        for part in text.split(".route(").skip(1) {
            let (path, rest) = part
                .split_once('"')
                .and_then(|(_, rest)| rest.split_once('"'))
                .expect("a path");
            let call = rest.split(".route(").next().unwrap_or_default();
            let call = call.split(";").next().unwrap_or_default();
            seen += 1;
            let methods = described
                .get(path)
                .unwrap_or_else(|| panic!("docs/openapi.json lacks {path}"));
            for method in ["get", "post", "put", "patch", "delete"] {
                let routed = call.contains(&format!("{method}("));
                assert_eq!(routed, methods.get(method).is_some(), "{method} {path}");
            }
        }
    }
    assert!(seen > 10, "{seen}");
}
