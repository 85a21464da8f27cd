//! Traces, as OpenTelemetry's own collector understands them.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::sink::Sink;
use crate::harness::collector::Collector;
use crate::harness::image::Image;
use crate::harness::server::Server;
use crate::harness::upstream::free_address;

const WAIT_SECONDS_MAX: u64 = 30;
/// Another program's trace, and its span in it.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

#[derive(Debug)]
struct Span {
    service: String,
    trace: String,
    id: String,
    parent: String,
    name: String,
    kind: i64,
    status: i64,
    attributes: BTreeMap<String, String>,
}

impl Span {
    fn attribute(&self, key: &str) -> &str {
        let value = self.attributes.get(key);
        value.unwrap_or_else(|| panic!("no {key} in {self:?}"))
    }
}

/// A server that sends its traces to a collector that sends them to a sink.
struct Traced {
    server: Server,
    sink: Sink,
    _collector: Collector,
}

impl Traced {
    fn start(more: &str) -> Self {
        let sink = Sink::start(0);
        let collector = Collector::start(&sink.url());
        let config = format!("[traces]\nendpoint = '{}/'\n{more}", collector.url());
        Self {
            server: Server::start_configured(&config),
            sink,
            _collector: collector,
        }
    }

    fn get(&self, target: &str, sampled: &str) -> u16 {
        let request = self.server.request("GET", target);
        let request = request.header("traceparent", format!("00-{TRACE}-{CALLER}-{sampled}"));
        request.header("User-Agent", "tester/1").send().status
    }

    /// Stops the server, which sends what it has, and waits for a span of each of these names.
    #[track_caller]
    fn spans(&mut self, names: &[&str]) -> Vec<Span> {
        self.server.stop();
        let deadline = Instant::now() + Duration::from_secs(WAIT_SECONDS_MAX);
        loop {
            let spans: Vec<Span> = self
                .sink
                .all()
                .iter()
                .flat_map(|one| spans_of(&one.json()))
                .collect();
            let missing: Vec<_> = names
                .iter()
                .filter(|name| !spans.iter().any(|span| span.name == **name))
                .collect();
            if missing.is_empty() {
                return spans;
            }
            assert!(Instant::now() < deadline, "{missing:?} not in {spans:#?}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn spans_of(batch: &Value) -> Vec<Span> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let attributes = |of: &Value| -> BTreeMap<String, String> {
        let pairs = list(&of["attributes"]);
        pairs
            .iter()
            .map(|pair| {
                let value = &pair["value"];
                let shown = value["stringValue"].as_str().or(value["intValue"].as_str());
                (text(&pair["key"]), shown.unwrap_or_default().to_owned())
            })
            .collect()
    };
    let mut found = Vec::new();
    for resource in list(&batch["resourceSpans"]) {
        let service = attributes(&resource["resource"]).remove("service.name");
        for scope in list(&resource["scopeSpans"]) {
            found.extend(list(&scope["spans"]).iter().map(|span| Span {
                service: service.clone().unwrap_or_default(),
                trace: text(&span["traceId"]),
                id: text(&span["spanId"]),
                parent: text(&span["parentSpanId"]),
                name: text(&span["name"]),
                kind: span["kind"].as_i64().unwrap_or_default(),
                status: span["status"]["code"].as_i64().unwrap_or_default(),
                attributes: attributes(span),
            }));
        }
    }
    found
}

#[test]
fn a_callers_trace_goes_on_through_the_registry_into_its_stores() {
    let mut traced = Traced::start("service = 'registry-7'\n");
    let image = Image::small(9700);
    image.push(&traced.server, "team/app", "v1");
    assert_eq!(traced.get("/v2/team/app/manifests/v1", "01"), 200);
    assert_eq!(traced.get("/v2/team/app/manifests/none", "01"), 404);
    assert_eq!(traced.get("/v2/team/app/tags/list", "00"), 200);
    assert_eq!(traced.get("/api/v1/builds/none", "01"), 404);
    assert_eq!(traced.get("/healthz", "01"), 200);
    let route = "GET /v2/{name}/manifests/{reference}";
    let spans = traced.spans(&[route, "GET /api/v1/builds/{id}", "commit_blob", "put_manifest"]);
    let log = traced.server.log();
    assert!(log.contains(&format!("trace=\"{TRACE}\"")), "{log}");
    assert!(spans.iter().all(|span| span.service == "registry-7"));
    let pull = spans
        .iter()
        .find(|span| span.name == route && span.attribute("http.response.status_code") == "200")
        .expect("the pull");
    assert_eq!((pull.trace.as_str(), pull.parent.as_str()), (TRACE, CALLER));
    assert_eq!((pull.kind, pull.status), (2, 0), "a server's span, no error");
    let address = traced.server.address();
    let port = address.port().to_string();
    for (key, value) in [
        ("http.request.method", "GET"),
        ("http.route", "/v2/{name}/manifests/{reference}"),
        ("url.path", "/v2/team/app/manifests/v1"),
        ("url.scheme", "http"),
        ("server.address", "127.0.0.1"),
        ("server.port", port.as_str()),
        ("client.address", "127.0.0.1"),
        ("network.protocol.version", "1.1"),
        ("user_agent.original", "tester/1"),
    ] {
        assert_eq!(pull.attribute(key), value, "{key}");
    }
    // Whose caller said no, and what is only a probe.
    assert!(!spans.iter().any(|span| span.name.contains("tags/list")));
    assert!(!spans.iter().any(|span| {
        span.attributes
            .get("url.path")
            .is_some_and(|path| path == "/healthz")
    }));

    // What a push does in the database and in the store belongs to the push, though tasks of their own do it.
    for (inner, system) in [
        ("commit_blob", "db.system.name"),
        ("put_manifest", "db.system.name"),
    ] {
        let inner = spans.iter().find(|span| span.name == inner).expect("waited for");
        assert_eq!((inner.kind, inner.attribute(system)), (3, "sqlite"));
        let outer = spans.iter().find(|span| span.id == inner.parent);
        let outer = outer.unwrap_or_else(|| panic!("{inner:?} has no parent"));
        assert_eq!((outer.kind, &outer.trace), (2, &inner.trace), "{outer:?}");
        assert_eq!(outer.parent, "", "nobody asked for a trace of this");
    }
}

#[test]
fn a_ratio_of_none_leaves_those_that_callers_want() {
    let mut traced = Traced::start("sample_ratio = 0.0\n");
    let image = Image::small(9710);
    image.push(&traced.server, "team/app", "v1");
    assert_eq!(traced.get("/v2/team/app/manifests/v1", "01"), 200);
    let spans = traced.spans(&["GET /v2/{name}/manifests/{reference}"]);
    assert!(spans.iter().all(|span| span.trace == TRACE), "{spans:#?}");
}

#[test]
fn a_collector_that_is_away_is_noted_and_keeps_nobody_waiting() {
    let config = format!("[traces]\nendpoint = 'http://{}'\n", free_address());
    let mut server = Server::start_configured(&config);
    let image = Image::small(9720);
    image.push(&server, "app", "v1");
    image.assert_on(&server, "app", "v1");
    server.stop();
    let log = server.log();
    assert_eq!(log.matches("traces are lost").count(), 1, "{log}");
}
