//! What somebody may do, and what a token asked for.

use std::collections::{BTreeMap, HashMap};

use oci::RepoName;
use oci::access::{Action, Actions, NameRange, RepoPattern, ResourceScope};
use serde::{Deserialize, Serialize};

/// Ranges of which each is worth a query of its own; more are one from the first to the last.
const RANGES_MAX: usize = 64;

/// Patterns with the actions allowed where they match; together they allow what any of them does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    /// What is allowed everywhere.
    everywhere: Actions,
    exact: HashMap<String, Actions>,
    patterns: Vec<(RepoPattern, Actions)>,
}

/// What a token was asked for and given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scope {
    repositories: BTreeMap<String, Actions>,
    pub(crate) catalog: bool,
    /// All that the bearer may do, for the API.
    pub(crate) everything: bool,
}

/// One element of a token's claim `access`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AccessClaim {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) actions: Vec<String>,
}

impl Rules {
    pub(crate) fn of(list: impl IntoIterator<Item = (RepoPattern, Actions)>) -> Self {
        let mut rules = Self::default();
        for (pattern, actions) in list {
            rules.add(&pattern, actions);
        }
        rules
    }

    pub(crate) fn everything() -> Self {
        Self::of([(RepoPattern::all(), Actions::ALL)])
    }

    pub(crate) fn add(&mut self, pattern: &RepoPattern, actions: Actions) {
        let text = pattern.to_string();
        if pattern.is_all() {
            self.everywhere = self.everywhere.and(actions);
        } else if text.ends_with('*') {
            self.patterns.push((pattern.clone(), actions));
        } else {
            let known = self.exact.entry(text).or_default();
            *known = known.and(actions);
        }
    }

    pub(crate) fn allow(&self, action: Action, name: &RepoName) -> bool {
        self.everywhere.allow(action)
            || self
                .exact
                .get(name.as_str())
                .is_some_and(|actions| actions.allow(action))
            || self
                .patterns
                .iter()
                .any(|(pattern, actions)| actions.allow(action) && pattern.matches(name))
    }

    /// Whether there can be a repository where it is allowed.
    pub(crate) fn any(&self, action: Action) -> bool {
        self.everywhere.allow(action)
            || self.exact.values().any(|actions| actions.allow(action))
            || self.patterns.iter().any(|(_, actions)| actions.allow(action))
    }

    /// Whether they may administrate everything, and so the server.
    pub(crate) fn is_admin(&self) -> bool {
        self.everywhere.allow(Action::Admin)
    }

    /// Where the names are for which an action is allowed: in order, disjoint, and few. They may hold others too.
    pub(crate) fn ranges(&self, action: Action) -> Vec<NameRange> {
        if self.everywhere.allow(action) {
            return vec![RepoPattern::all().range()];
        }
        let exact = self.exact.iter().filter(|(_, actions)| actions.allow(action));
        let exact = exact.filter_map(|(name, _)| name.parse::<RepoPattern>().ok().map(|name| name.range()));
        let patterns = self.patterns.iter().filter(|(_, actions)| actions.allow(action));
        let all = exact.chain(patterns.map(|(pattern, _)| pattern.range()));
        let mut ranges = NameRange::union(all.collect());
        if ranges.len() > RANGES_MAX
            && let (Some(first), Some(last)) = (ranges.first(), ranges.last())
        {
            ranges = vec![NameRange {
                low: first.low.clone(),
                high: last.high.clone(),
            }];
        }
        ranges
    }
}

impl Scope {
    pub(crate) fn allows(&self, action: Action, repository: &RepoName) -> bool {
        self.everything
            || self
                .repositories
                .get(repository.as_str())
                .is_some_and(|actions| actions.allow(action))
    }

    /// Whether there is a repository where it is allowed.
    pub(crate) fn any(&self, action: Action) -> bool {
        self.everything || self.repositories.values().any(|actions| actions.allow(action))
    }

    /// Reads a token's claims. Actions and types that mean nothing here give nothing.
    pub(crate) fn of_claims(claims: &[AccessClaim]) -> Self {
        let mut scope = Self::default();
        for claim in claims {
            match (claim.kind.as_str(), claim.name.as_str()) {
                ("repository", name) => {
                    let actions = known_actions(&claim.actions);
                    let known = scope.repositories.entry(name.to_owned()).or_default();
                    *known = known.and(actions);
                }
                ("registry", "catalog") => scope.catalog = true,
                ("registry", "api") => scope.everything = true,
                _ => {}
            }
        }
        scope
    }

    /// As rules: what an external service's token says is all there is.
    pub(crate) fn rules(&self) -> Rules {
        let rules = self.repositories.iter();
        Rules::of(rules.filter_map(|(name, actions)| {
            let name: RepoName = name.parse().ok()?;
            Some((RepoPattern::exactly(&name), *actions))
        }))
    }
}

impl AccessClaim {
    /// The part of what is wanted that `may` allows. What is malformed or not allowed gives nothing, and is no error.
    pub(crate) fn granted(
        wanted: &[ResourceScope],
        api: bool,
        may: impl Fn(Action, &RepoName) -> bool,
    ) -> Vec<Self> {
        let claim = |scope: &ResourceScope, actions: Vec<String>| Self {
            kind: scope.kind.clone(),
            name: scope.name.clone(),
            actions,
        };
        let grant = |scope: &ResourceScope| match (scope.kind.as_str(), scope.name.as_str()) {
            ("repository", name) => {
                let name: RepoName = name.parse().ok()?;
                let actions = known_actions(&scope.actions);
                let allowed: Vec<String> = actions
                    .iter()
                    .filter(|action| may(*action, &name))
                    .map(|action| action.to_string())
                    .collect();
                (!allowed.is_empty()).then(|| claim(scope, allowed))
            }
            ("registry", "catalog") => Some(claim(scope, vec!["*".to_owned()])),
            ("registry", "api") if api => Some(claim(scope, vec!["*".to_owned()])),
            _ => None,
        };
        wanted.iter().filter_map(grant).collect()
    }
}

/// `*` is all of them.
fn known_actions(texts: &[String]) -> Actions {
    texts
        .iter()
        .map(|text| match text.as_str() {
            "*" => Actions::ALL,
            text => text.parse::<Action>().into_iter().collect(),
        })
        .fold(Actions::NONE, Actions::and)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(list: &[(&str, &str)]) -> Rules {
        Rules::of(
            list.iter()
                .map(|(pattern, actions)| (pattern.parse().unwrap(), actions.parse().unwrap())),
        )
    }

    #[test]
    fn rules_add_up() {
        let rules = rules(&[
            ("team/**", "pull"),
            ("team/app", "push"),
            ("**", "delete"),
            ("own*", "admin"),
        ]);
        let may = |action, name: &str| rules.allow(action, &name.parse().unwrap());
        assert!(may(Action::Pull, "team/app") && may(Action::Push, "team/app"));
        assert!(!may(Action::Push, "team/other") && may(Action::Pull, "team/x/y"));
        assert!(may(Action::Delete, "anything") && !may(Action::Pull, "anything"));
        assert!(may(Action::Push, "own-1") && !rules.is_admin());
        let ranges = rules.ranges(Action::Pull);
        assert_eq!(ranges.len(), 2, "{ranges:?}");
        let many: Vec<(String, &str)> = (0..100).map(|n| (format!("repo{n:03}"), "pull")).collect();
        let many: Vec<(&str, &str)> = many
            .iter()
            .map(|(name, actions)| (name.as_str(), *actions))
            .collect();
        let ranges = self::rules(&many).ranges(Action::Pull);
        assert_eq!(ranges.len(), 1);
        assert_eq!(
            (ranges[0].low.as_str(), ranges[0].high.as_deref()),
            ("repo000", Some("repo099\u{1}"))
        );
    }

    #[test]
    fn a_token_gets_what_is_both_wanted_and_allowed() {
        let rules = rules(&[("team/**", "pull,push"), ("open", "pull")]);
        let wanted = ResourceScope::parse_all(
            "repository:team/app:pull,push,delete repository:open:push,pull repository:secret:pull \
             repository:team/x:* registry:catalog:* registry:api:* repository:BAD:pull other:thing:pull",
        )
        .unwrap();
        let claims = AccessClaim::granted(&wanted, false, |action, name| rules.allow(action, name));
        let shown: Vec<String> = claims
            .iter()
            .map(|claim| format!("{}:{}", claim.name, claim.actions.join(",")))
            .collect();
        assert_eq!(
            shown,
            ["team/app:pull,push", "open:pull", "team/x:pull,push", "catalog:*"]
        );
        let scope = Scope::of_claims(&claims);
        assert!(scope.allows(Action::Push, &"team/app".parse().unwrap()));
        assert!(!scope.allows(Action::Delete, &"team/app".parse().unwrap()));
        assert!(!scope.allows(Action::Pull, &"team/other".parse().unwrap()));
        assert!(scope.catalog && !scope.everything);
    }
}
