//! Which endpoint wants to hear of what.

use oci::RepoName;

use super::notice::{Notice, Subject};
use crate::config::WebhookConfig;
use crate::metadata::{Change, Event};

/// What is told where nobody says what is wanted.
const ACTIONS: [&str; 2] = ["push", "delete"];

/// Changes of manifests and tags.
pub(super) fn wants(endpoint: &WebhookConfig, event: &Event) -> bool {
    let (action, media_type) = match &event.change {
        Change::Push { media_type, .. } => ("push", Some(media_type.as_str())),
        Change::Delete { .. } | Change::Untag { .. } => ("delete", None),
    };
    wants_action(endpoint, action, false) && is_about(endpoint, &event.repository, media_type)
}

pub(super) fn wants_notice(endpoint: &WebhookConfig, notice: &Notice) -> bool {
    let media_type = match &notice.subject {
        Subject::Manifest { media_type, .. } => media_type,
        Subject::Blob { .. } => BLOB_MEDIA_TYPE,
    };
    wants_action(endpoint, notice.action.name(), notice.subject.is_blob())
        && is_about(endpoint, &notice.repository, Some(media_type))
}

/// What blobs are told as: their own types only manifests know.
pub(super) const BLOB_MEDIA_TYPE: &str = "application/octet-stream";

/// Whether there is anything that is not told of by the outbox.
pub(super) fn wants_notices(endpoint: &WebhookConfig) -> bool {
    endpoint.blobs || wants_action(endpoint, "pull", false) || wants_action(endpoint, "mount", true)
}

pub(super) fn wants_action(endpoint: &WebhookConfig, action: &str, blob: bool) -> bool {
    let wanted = if endpoint.actions.is_empty() {
        ACTIONS.contains(&action)
    } else {
        endpoint.actions.contains(action)
    };
    // Only blobs are mounted: who asks for that wants to hear of blobs.
    wanted && (!blob || endpoint.blobs || action == "mount")
}

fn is_about(endpoint: &WebhookConfig, repository: &RepoName, media_type: Option<&str>) -> bool {
    let repository = repository.as_str();
    let named = |pattern: &String| match pattern.strip_suffix('*') {
        Some(prefix) => repository.starts_with(prefix),
        None => repository == pattern,
    };
    let ignored = |media_type| {
        endpoint
            .ignore_media_types
            .iter()
            .any(|ignored| ignored == media_type)
    };
    (endpoint.repositories.is_empty() || endpoint.repositories.iter().any(named))
        && !media_type.is_some_and(ignored)
}

#[cfg(test)]
mod tests {
    use oci::Digest;
    use serde_json::{Value, json};

    use super::super::notice::{Action, Request};
    use super::*;

    fn endpoint(extra: &Value) -> WebhookConfig {
        let mut endpoint = json!({ "name": "a", "url": "http://a" });
        let fields = endpoint.as_object_mut().unwrap();
        fields.extend(extra.as_object().unwrap().clone());
        serde_json::from_value(endpoint).unwrap()
    }

    #[test]
    fn filters_name_repositories_actions_and_media_types() {
        let event = Event {
            id: 1,
            at: 0,
            repository: "team/app".parse().unwrap(),
            change: Change::Push {
                digest: Digest::sha256(b""),
                media_type: "text/x".to_owned(),
                size: 0,
                tags: Vec::new(),
                actor: String::new(),
                origin: Default::default(),
            },
            payload: None,
        };
        for (extra, wanted) in [
            (json!({}), true),
            (json!({ "repositories": ["team/*"] }), true),
            (json!({ "repositories": ["team", "other/*"] }), false),
            (json!({ "actions": ["push"] }), true),
            (json!({ "actions": ["delete", "pull"] }), false),
            (json!({ "ignore_media_types": ["text/x"] }), false),
        ] {
            assert_eq!(wants(&endpoint(&extra), &event), wanted, "{extra}");
        }
    }

    #[test]
    fn notices_are_for_those_who_ask_for_them() {
        let manifest = || Subject::Manifest {
            media_type: "text/x".to_owned(),
            tag: None,
        };
        let blob = || Subject::Blob { from: None };
        let all = json!({ "actions": ["pull", "push", "mount", "delete"], "blobs": true });
        let quiet = json!({ "actions": ["pull", "push"], "blobs": true,
            "ignore_media_types": ["text/x", "application/octet-stream"] });
        for (extra, action, subject, wanted) in [
            (json!({}), Action::Pull, manifest(), false),
            (json!({}), Action::Push, blob(), false),
            (json!({ "blobs": true }), Action::Push, blob(), true),
            (json!({ "blobs": true }), Action::Pull, blob(), false),
            (json!({ "actions": ["pull"] }), Action::Pull, manifest(), true),
            (json!({ "actions": ["pull"] }), Action::Pull, blob(), false),
            (json!({ "actions": ["mount"] }), Action::Mount, blob(), true),
            (all.clone(), Action::Mount, blob(), true),
            (all, Action::Delete, blob(), true),
            (quiet.clone(), Action::Pull, manifest(), false),
            (quiet, Action::Push, blob(), false),
        ] {
            let notice = Notice {
                action,
                repository: "team/app".parse().unwrap(),
                subject,
                digest: Digest::sha256(b""),
                size: None,
                request: Request {
                    method: http::Method::GET,
                    actor: String::new(),
                    origin: Default::default(),
                },
                at: time::OffsetDateTime::UNIX_EPOCH,
            };
            let endpoint = endpoint(&extra);
            assert_eq!(wants_notice(&endpoint, &notice), wanted, "{extra} {notice:?}");
            assert!(!wanted || wants_notices(&endpoint), "{extra}");
        }
        assert!(!wants_notices(&endpoint(&json!({}))));
    }
}
