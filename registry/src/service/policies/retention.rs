//! Retention: tags that policies let go. They are deleted as a client deletes them, so that they can be restored.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use client::api::collection::TagFate;
use oci::{RepoName, Tag};

use super::Policies;
use crate::config::Policy;
use crate::metadata::collection::TagAge;
use crate::service::jobs::{Next, Scope};
use crate::service::{Jobs, Registry, Result};

/// Tags and repositories of one look-up.
const PAGE: u32 = 1000;
/// How often it is looked whether a policy's time has come.
const TICK: Duration = Duration::from_secs(1);

impl Registry {
    /// Applies retention for the life of the server, in one process at a time.
    pub(crate) fn keep_retaining(self: &Arc<Self>, jobs: &Jobs) {
        let interval = |rule: &Policy| Some(rule.retention.as_ref()?.interval);
        let Some(interval) = self.policies.rules.iter().filter_map(interval).min() else {
            return;
        };
        let registry = Arc::clone(self);
        jobs.start("retention", interval.max(TICK), Scope::Singleton, move |turn| {
            let registry = Arc::clone(&registry);
            async move {
                registry.retain(|| turn.is_stopping()).await?;
                Ok(Next::Rest)
            }
        });
    }

    /// Looks at every repository that a policy with retention is for.
    async fn retain(&self, stop: impl Fn() -> bool) -> Result<()> {
        let mut after: Option<RepoName> = None;
        loop {
            let after_name = after.as_ref().map(RepoName::as_str);
            let page = self.metadata.list_repositories(after_name, PAGE).await?;
            for repository in &page {
                if stop() {
                    return Ok(());
                }
                if self.policies.of(repository).any(|rule| rule.retention.is_some()) {
                    self.retain_in(repository).await?;
                }
            }
            after = page.last().cloned();
            if page.len() < PAGE as usize {
                return Ok(());
            }
        }
    }

    async fn retain_in(&self, repository: &RepoName) -> Result<()> {
        for (tag, fate) in self.tag_fates(repository).await? {
            let Some(rule) = fate.removed_by else { continue };
            let actor = format!("policy:{rule}");
            let deleted = self.metadata.expire_tag(repository, &tag, &actor).await?;
            self.caches.tags.changed(repository, &tag.name);
            if deleted {
                tracing::info!(%repository, tag = %tag.name, rule, "a policy deleted a tag");
            }
        }
        Ok(())
    }

    /// What policies would do with the repository's tags.
    pub(crate) async fn explain_tags(&self, repository: &RepoName) -> Result<Vec<TagFate>> {
        let fates = self.tag_fates(repository).await?;
        Ok(fates.into_iter().map(|(_, fate)| fate).collect())
    }

    async fn tag_fates(&self, repository: &RepoName) -> Result<Vec<(TagAge, TagFate)>> {
        let rules: Vec<&Policy> = self
            .policies
            .of(repository)
            .filter(|rule| rule.retention.is_some())
            .collect();
        if rules.is_empty() {
            return Ok(Vec::new());
        }
        // So that what is being pulled now counts.
        self.flush_pulls().await?;
        let mut tags = Vec::new();
        let mut after: Option<Tag> = None;
        loop {
            let name = after.as_ref().map(Tag::as_str);
            let page = self.metadata.list_tag_ages(repository, name, PAGE).await?;
            after = page.last().map(|tag| tag.name.clone());
            let more = page.len() >= PAGE as usize;
            tags.extend(page);
            if !more {
                break;
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut fates = decide(&rules, &tags, i64::try_from(now.as_micros()).unwrap_or(i64::MAX));
        let decided = tags.into_iter().map(|tag| {
            let mut fate = fates
                .remove(&tag.name)
                .unwrap_or_else(|| kept(&tag.name, "no retention is about it"));
            if fate.removed_by.is_some()
                && let Some(why) = self.policies.retained_anyway(repository, &tag.name)
            {
                fate = kept(&tag.name, &why);
            }
            (tag, fate)
        });
        Ok(decided.collect())
    }
}

impl Policies {
    /// Why no retention deletes the tag, whatever its rule says: a rule that forbids goes before one that tidies up.
    fn retained_anyway(&self, repository: &RepoName, tag: &Tag) -> Option<String> {
        if let Some(rule) = self.closer(repository) {
            return Some(format!("the repository is read-only by {rule}"));
        }
        let keeper = self.keeper(repository, tag.as_str())?;
        Some(format!("immutable by policy {keeper}"))
    }
}

fn kept(tag: &Tag, why: &str) -> TagFate {
    TagFate {
        tag: tag.clone(),
        removed_by: None,
        says: format!("kept: {why}"),
    }
}

/// Every rule decides for itself; a tag goes if one lets it go.
fn decide(rules: &[&Policy], tags: &[TagAge], now: i64) -> BTreeMap<Tag, TagFate> {
    let mut fates: BTreeMap<Tag, TagFate> = BTreeMap::new();
    for rule in rules {
        let Some(retention) = &rule.retention else {
            continue;
        };
        let mut about: Vec<&TagAge> = tags
            .iter()
            .filter(|tag| retention.is_for(tag.name.as_str()))
            .collect();
        about.sort_by(|a, b| (b.updated_at, &b.name).cmp(&(a.updated_at, &a.name)));
        let within = |at: i64, time: Duration| {
            now.saturating_sub(at) < i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
        };
        for (index, tag) in about.into_iter().enumerate() {
            let why = if (index as u64) < u64::from(retention.keep_last) {
                Some(format!("one of the last {}", retention.keep_last))
            } else if within(tag.updated_at, retention.keep_newer_than) {
                Some(format!(
                    "set within {}",
                    humantime::format_duration(retention.keep_newer_than)
                ))
            } else if tag
                .pulled_at
                .is_some_and(|at| within(at, retention.keep_pulled_within))
            {
                Some(format!(
                    "pulled within {}",
                    humantime::format_duration(retention.keep_pulled_within)
                ))
            } else {
                None
            };
            let fate = match why {
                Some(why) => kept(&tag.name, &format!("{why} (policy {})", rule.name)),
                None => TagFate {
                    tag: tag.name.clone(),
                    removed_by: Some(rule.name.clone()),
                    says: format!("removed: policy {} keeps it no longer", rule.name),
                },
            };
            let known = fates.entry(tag.name.clone()).or_insert_with(|| fate.clone());
            if known.removed_by.is_none() {
                *known = fate;
            }
        }
    }
    fates
}

#[cfg(test)]
mod tests {
    use oci::Digest;

    use super::*;
    use crate::config::Retention;

    const DAY: i64 = 24 * 3_600_000_000;

    fn tag(name: &str, days_old: i64, pulled_days_ago: Option<i64>) -> TagAge {
        let now = 1000 * DAY;
        TagAge {
            name: name.parse().unwrap(),
            digest: Digest::sha256(name.as_bytes()),
            updated_at: now - days_old * DAY,
            pulled_at: pulled_days_ago.map(|days| now - days * DAY),
        }
    }

    #[test]
    fn any_condition_keeps_and_any_rule_removes() {
        let days = |days: u64| Duration::from_secs(days * 24 * 3600);
        let rule = |name: &str, retention| Policy {
            name: name.to_owned(),
            retention: Some(retention),
            ..Policy::default()
        };
        let previews = rule(
            "previews",
            Retention {
                tags: vec!["pr-*".parse().unwrap()],
                keep_last: 1,
                keep_newer_than: days(5),
                keep_pulled_within: days(3),
                ..Retention::default()
            },
        );
        let tags = [
            tag("pr-1", 20, None),
            tag("pr-2", 10, Some(2)),
            tag("pr-3", 9, Some(4)),
            tag("pr-4", 4, None),
            tag("pr-5", 6, None),
            tag("v1", 500, None),
        ];
        let fates = decide(&[&previews], &tags, 1000 * DAY);
        let removed: Vec<&str> = fates
            .values()
            .filter(|fate| fate.removed_by.as_deref() == Some("previews"))
            .map(|fate| fate.tag.as_str())
            .collect();
        assert_eq!(removed, ["pr-1", "pr-3", "pr-5"]);
        assert!(!fates.contains_key(&"v1".parse::<Tag>().unwrap()));
        let old = rule(
            "old",
            Retention {
                keep_newer_than: days(365),
                ..Retention::default()
            },
        );
        let fates = decide(&[&previews, &old], &tags, 1000 * DAY);
        assert_eq!(
            fates[&"v1".parse::<Tag>().unwrap()].removed_by.as_deref(),
            Some("old")
        );
        assert_eq!(
            fates[&"pr-1".parse::<Tag>().unwrap()].removed_by.as_deref(),
            Some("previews")
        );
    }
}
