//! The JSON of a notification, field by field as distribution 3 writes it.

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::metadata::{Change, Event, Origin};

pub(super) const MEDIA_TYPE: &str = "application/vnd.docker.distribution.events.v2+json";

/// The server that tells.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Source {
    addr: String,
    #[serde(rename = "instanceID")]
    instance: String,
}

#[derive(Serialize)]
struct Envelope<'a> {
    events: [Notification<'a>; 1],
}

#[derive(Serialize)]
struct Notification<'a> {
    id: String,
    timestamp: String,
    action: &'static str,
    target: Target,
    request: Request<'a>,
    actor: Actor<'a>,
    source: &'a Source,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<u64>,
    repository: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
}

#[derive(Default, Serialize)]
struct Request<'a> {
    id: &'a str,
    addr: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    host: &'a str,
    method: &'static str,
    useragent: &'a str,
}

#[derive(Serialize)]
struct Actor<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
}

impl Source {
    pub(super) fn new(addr: String) -> Self {
        Self {
            addr,
            instance: uuid::Uuid::new_v4().to_string(),
        }
    }
}

/// The notifications of an event: of a push one for each tag, or one without.
pub(super) fn of(event: &Event, source: &Source) -> Vec<String> {
    let targets = targets(event);
    let (action, actor, request) = match &event.change {
        Change::Push { actor, origin, .. } => ("push", actor, request(origin)),
        Change::Delete { actor, .. } | Change::Untag { actor, .. } => ("delete", actor, Request::default()),
    };
    let notification = |target| {
        let envelope = Envelope {
            events: [Notification {
                id: uuid::Uuid::new_v4().to_string(),
                timestamp: timestamp(event.at),
                action,
                target,
                request: Request { ..request },
                actor: Actor { name: actor },
                source,
            }],
        };
        // Nothing in it can fail to be written.
        serde_json::to_string(&envelope).unwrap_or_default()
    };
    targets.into_iter().map(notification).collect()
}

fn targets(event: &Event) -> Vec<Target> {
    let repository = event.repository.to_string();
    match &event.change {
        Change::Push {
            digest,
            media_type,
            size,
            tags,
            origin,
            ..
        } => {
            let tags = if tags.is_empty() {
                vec![None]
            } else {
                tags.iter().map(|tag| Some(tag.to_string())).collect()
            };
            let url = (!origin.host.is_empty())
                .then(|| format!("http://{}/v2/{repository}/manifests/{digest}", origin.host));
            let target = |tag| Target {
                media_type: Some(media_type.clone()),
                digest: Some(digest.to_string()),
                size: Some(*size),
                length: Some(*size),
                repository: repository.clone(),
                url: url.clone(),
                tag,
            };
            tags.into_iter().map(target).collect()
        }
        Change::Delete { digest, .. } => vec![Target {
            digest: Some(digest.to_string()),
            repository,
            ..Target::default()
        }],
        Change::Untag { tag, .. } => vec![Target {
            tag: Some(tag.to_string()),
            repository,
            ..Target::default()
        }],
    }
}

fn request(origin: &Origin) -> Request<'_> {
    Request {
        id: &origin.id,
        addr: &origin.address,
        host: &origin.host,
        method: "PUT",
        useragent: &origin.user_agent,
    }
}

fn timestamp(micros: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}
