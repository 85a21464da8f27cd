//! Notifications of pushes and deletions, in the form that distribution's have.

use std::collections::BTreeSet;

use serde_json::Value;

use super::sink::Sink;
use crate::harness::image::Image;
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

fn fields(value: &Value, path: &str) -> BTreeSet<String> {
    let Value::Object(map) = value else {
        return BTreeSet::from([path.to_owned()]);
    };
    map.iter()
        .flat_map(|(key, value)| fields(value, &format!("{path}.{key}")))
        .collect()
}
