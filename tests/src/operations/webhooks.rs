//! Notifications of pushes and deletions, in the form that distribution's have.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::sink::Sink;
use crate::harness::http::Request;
use crate::harness::image::{Image, sha256};
use crate::harness::server::Server;
use crate::harness::upstream::{Access, Upstream};

fn config(sink: &Sink) -> String {
    format!(
        "[[webhooks]]\nname = 'ci'\nurl = '{}'\nheaders = {{ Authorization = 'Bearer secret' }}\n\
         backoff = '100ms'\nrepositories = ['team/*']\n",
        sink.url()
    )
}

#[test]
fn pushes_and_deletions_are_told_until_somebody_listens() {
    let sink = Sink::start(2);
    let mut server = Server::start_configured(&config(&sink));
    let image = Image::small(9100);
    image.push(&server, "other", "v1");
    image.push(&server, "team/app", "v1");
    server
        .request("DELETE", "/v2/team/app/manifests/v1")
        .send()
        .expect(202);
    // What waits is told after a restart as well.
    server.kill();
    server.restart();
    let taken = sink.taken(2);
    let push = &taken[0].json()["events"][0];
    assert_eq!(push["action"], "push");
    assert_eq!(push["target"]["digest"], image.digest());
    assert_eq!(push["target"]["tag"], "v1");
    assert_eq!(push["target"]["repository"], "team/app");
    assert_eq!(push["actor"]["name"], "anonymous");
    assert_eq!(taken[0].header("authorization").as_deref(), Some("Bearer secret"));
    let deletion = &taken.last().expect("two").json()["events"][0];
    assert_eq!(
        (&deletion["action"], &deletion["target"]["tag"]),
        (&"delete".into(), &"v1".into())
    );
    assert!(sink.all().iter().filter(|one| one.refused).count() == 2);
    assert!(
        sink.all()
            .iter()
            .all(|one| !String::from_utf8_lossy(&one.body).contains("\"other\""))
    );
    let shown = server.layeryard(["config", "show", "--config"]);
    let shown = shown.arg(server.scratch().join("layeryard.toml")).ok();
    assert!(!shown.contains("secret"), "{shown}");
}

/// The same push on both: the same fields, and the same values where they don't name the server.
#[test]
fn a_push_is_told_as_distribution_tells_it() {
    let (ours, theirs) = (Sink::start(0), Sink::start(0));
    let server = Server::start_configured(&config(&ours));
    let notifications = format!(
        "notifications: {{endpoints: [{{name: ci, url: '{}', timeout: 5s, threshold: 3, backoff: 1s}}]}}\n",
        theirs.url()
    );
    let upstream = Upstream::start_with(Access::Open, &notifications);
    let image = Image::small(9110);
    image.push(&server, "team/app", "v1");
    image.push_to(upstream.address(), "team/app", "v1");
    let ours = &ours.taken(1)[0];
    let of_manifest =
        |event: &Value| event["target"]["mediaType"] == image.media_type && event["action"] == "push";
    let theirs = theirs.taken(3);
    let theirs = theirs.iter().find(|one| of_manifest(&one.json()["events"][0]));
    let theirs = theirs.expect("distribution tells of the manifest");
    assert_eq!(ours.header("content-type"), theirs.header("content-type"));
    let (ours, theirs) = (ours.json(), theirs.json());
    let (ours, theirs) = (&ours["events"][0], &theirs["events"][0]);
    for field in ["mediaType", "digest", "size", "length", "repository", "tag"] {
        assert_eq!(ours["target"][field], theirs["target"][field], "{field}");
    }
    assert_eq!(ours["request"]["method"], theirs["request"]["method"]);
    let (ours, theirs) = (fields(ours, ""), fields(theirs, ""));
    let missing: BTreeSet<_> = theirs.difference(&ours).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// What a client does in a day, told by both: the same events, and for those that no outbox holds the same fields.
#[test]
fn pulls_mounts_and_blobs_are_told_as_distribution_tells_them() {
    let (ours, theirs) = (Sink::start(0), Sink::start(0));
    let more = "actions = ['pull', 'push', 'mount', 'delete']\nblobs = true\n";
    let server = Server::start_configured(&format!("{}{more}", config(&ours)));
    let notifications = format!(
        "notifications: {{endpoints: [{{name: ci, url: '{}', timeout: 5s, threshold: 3, backoff: 1s}}]}}\n",
        theirs.url()
    );
    let upstream = Upstream::start_with(Access::Open, &notifications);
    let image = Image::small(9120);
    let layer = sha256(&image.blobs[1]);
    for registry in [server.address(), upstream.address()] {
        image.push_to(registry, "team/app", "v1");
        let send = |method: &str, target: &str| {
            let request = Request::new(method, registry, target);
            request.header("Accept", image.media_type).send()
        };
        send("GET", "/v2/team/app/manifests/v1").expect(200);
        send("GET", &format!("/v2/team/app/manifests/{}", image.digest())).expect(200);
        send("GET", &format!("/v2/team/app/blobs/{layer}")).expect(200);
        let mount = format!("/v2/team/other/blobs/uploads/?mount={layer}&from=team/app");
        send("POST", &mount).expect(201);
        send("DELETE", &format!("/v2/team/other/blobs/{layer}")).expect(202);
    }
    let ours = told(&ours, 8);
    let theirs = told(&theirs, 8);
    let shown = |events: &[Value]| -> Vec<String> {
        let mut shown: Vec<String> = events
            .iter()
            .map(|event| {
                let target = [
                    "mediaType",
                    "digest",
                    "size",
                    "length",
                    "repository",
                    "fromRepository",
                    "tag",
                ];
                // distribution writes empty fields where there is nothing to say.
                let text = |field| match &event["target"][field] {
                    Value::Null => "-".to_owned(),
                    value if value == "" || value == 0 => "-".to_owned(),
                    value => value.to_string(),
                };
                let target = target.map(text).join(" ");
                format!("{} {target} {}", event["action"], event["request"]["method"])
            })
            .collect();
        shown.sort();
        shown
    };
    assert_eq!(shown(&ours), shown(&theirs));
    let all = |events: &[Value]| -> BTreeSet<String> {
        events.iter().flat_map(|event| fields(event, "")).collect()
    };
    let (ours, theirs) = (all(&ours), all(&theirs));
    let missing: BTreeSet<_> = theirs.difference(&ours).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The events that came, however many an envelope.
#[track_caller]
fn told(sink: &Sink, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let all = sink.all();
        let events: Vec<Value> = all
            .iter()
            .flat_map(|one| one.json()["events"].as_array().cloned().unwrap_or_default())
            .collect();
        if events.len() >= count {
            return events;
        }
        assert!(
            Instant::now() < deadline,
            "{} of {count} came: {events:#?}",
            events.len()
        );
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn notices_that_nobody_takes_are_counted_and_keep_no_pull_waiting() {
    let sink = Sink::start(usize::MAX);
    let mut server = Server::start_configured(&format!("{}actions = ['pull']\n", config(&sink)));
    let image = Image::small(9130);
    image.push(&server, "team/app", "v1");
    for _ in 0..3 {
        server
            .request("GET", "/v2/team/app/manifests/v1")
            .send()
            .expect(200);
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let metrics = server.metrics();
        if metrics.contains("layeryard_webhook_notices_dropped_total 3\n") {
            break;
        }
        assert!(Instant::now() < deadline, "{metrics}");
        thread::sleep(Duration::from_millis(20));
    }
    server.stop();
    let log = server.log();
    assert_eq!(log.matches("notices are lost").count(), 1, "{log}");
    // Nobody asked for pushes.
    assert!(
        sink.all()
            .iter()
            .all(|one| one.json()["events"][0]["action"] == "pull")
    );
}

fn fields(value: &Value, path: &str) -> BTreeSet<String> {
    let Value::Object(map) = value else {
        return BTreeSet::from([path.to_owned()]);
    };
    map.iter()
        .flat_map(|(key, value)| fields(value, &format!("{path}.{key}")))
        .collect()
}
