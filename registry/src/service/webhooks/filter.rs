//! Which endpoint wants which event.

use crate::config::WebhookConfig;
use crate::metadata::{Change, Event};

pub(super) fn wants(endpoint: &WebhookConfig, event: &Event) -> bool {
    let action = match &event.change {
        Change::Push { .. } => "push",
        Change::Delete { .. } | Change::Untag { .. } => "delete",
    };
    let ignored = match &event.change {
        Change::Push { media_type, .. } => endpoint.ignore_media_types.contains(media_type),
        Change::Delete { .. } | Change::Untag { .. } => false,
    };
    let repository = event.repository.as_str();
    let here = endpoint.repositories.is_empty()
        || endpoint
            .repositories
            .iter()
            .any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => repository.starts_with(prefix),
                None => repository == pattern,
            });
    here && !ignored && (endpoint.actions.is_empty() || endpoint.actions.contains(action))
}

#[cfg(test)]
mod tests {
    use oci::Digest;
    use serde_json::json;

    use super::*;

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
            (json!({ "actions": ["delete"] }), false),
            (json!({ "ignore_media_types": ["text/x"] }), false),
        ] {
            let mut endpoint = json!({ "name": "a", "url": "http://a" });
            let fields = endpoint.as_object_mut().unwrap();
            fields.extend(extra.as_object().unwrap().clone());
            let endpoint: WebhookConfig = serde_json::from_value(endpoint).unwrap();
            assert_eq!(wants(&endpoint, &event), wanted, "{extra}");
        }
    }
}
