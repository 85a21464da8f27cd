//! The JSON of a notification, field by field as distribution 3 writes it.

use std::sync::Arc;

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::filter::BLOB_MEDIA_TYPE;
use super::notice::{Action, Notice, Subject};
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
    events: Vec<Notification<'a>>,
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
    from_repository: Option<String>,
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
    method: &'a str,
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
        written(vec![Notification {
            id: uuid::Uuid::new_v4().to_string(),
            timestamp: timestamp(event.at),
            action,
            target,
            request: Request { ..request },
            actor: Actor { name: actor },
            source,
        }])
    };
    targets.into_iter().map(notification).collect()
}

/// Several notices at once, as the format allows.
pub(super) fn of_notices(notices: &[Arc<Notice>], source: &Source) -> String {
    let events = notices.iter().map(|notice| Notification {
        id: uuid::Uuid::new_v4().to_string(),
        timestamp: notice.at.format(&Rfc3339).unwrap_or_default(),
        action: notice.action.name(),
        target: target(notice),
        request: Request {
            method: notice.request.method.as_str(),
            ..request(&notice.request.origin)
        },
        actor: Actor {
            name: &notice.request.actor,
        },
        source,
    });
    written(events.collect())
}

fn target(notice: &Notice) -> Target {
    let (repository, digest) = (notice.repository.to_string(), notice.digest);
    let (kind, media_type, tag, from) = match &notice.subject {
        Subject::Manifest { media_type, tag } => ("manifests", media_type.as_str(), tag.as_ref(), None),
        Subject::Blob { from } => ("blobs", BLOB_MEDIA_TYPE, None, from.as_ref()),
    };
    // Of what is gone there is nothing to say but what it was.
    if notice.action == Action::Delete {
        return Target {
            digest: Some(digest.to_string()),
            repository,
            ..Target::default()
        };
    }
    let host = &notice.request.origin.host;
    Target {
        media_type: Some(media_type.to_owned()),
        digest: Some(digest.to_string()),
        size: notice.size,
        length: notice.size,
        url: (!host.is_empty()).then(|| format!("http://{host}/v2/{repository}/{kind}/{digest}")),
        tag: tag.map(ToString::to_string),
        from_repository: from.map(ToString::to_string),
        repository,
    }
}

fn written(events: Vec<Notification<'_>>) -> String {
    // Nothing in it can fail to be written.
    serde_json::to_string(&Envelope { events }).unwrap_or_default()
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
                from_repository: None,
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
