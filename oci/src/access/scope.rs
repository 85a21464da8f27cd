//! Scopes of token servers: `repository:team/app:pull,push` (distribution, "Token Scope Documentation").

use std::fmt;
use std::str::FromStr;

/// A resource and the actions on it. What they mean is the server's business: names and actions are any text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResourceScope {
    pub kind: String,
    pub name: String,
    pub actions: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("scope {0:?} is invalid: expected TYPE:NAME:ACTION,…")]
pub struct ScopeError(String);

impl ResourceScope {
    /// Several, separated by spaces.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, ScopeError> {
        text.split_ascii_whitespace().map(str::parse).collect()
    }
}

impl FromStr for ResourceScope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let wrong = || ScopeError(text.chars().take(300).collect());
        // A name may hold `:` (a host's port); type and actions never do.
        let (kind, rest) = text.split_once(':').ok_or_else(wrong)?;
        let (name, actions) = rest.rsplit_once(':').ok_or_else(wrong)?;
        // `repository(plugin)`: a class of resources, which nobody tells apart any more.
        let kind = kind.split('(').next().unwrap_or_default();
        if kind.is_empty() || name.is_empty() {
            return Err(wrong());
        }
        let actions = actions.split(',').filter(|action| !action.is_empty());
        Ok(Self {
            kind: kind.to_owned(),
            name: name.to_owned(),
            actions: actions.map(str::to_owned).collect(),
        })
    }
}

impl fmt::Display for ResourceScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.kind, self.name, self.actions.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_taken_apart() {
        let scopes = ResourceScope::parse_all(
            "repository:localhost:5000/a/b:pull,push registry:catalog:* repository(plugin):x:",
        );
        let shown: Vec<String> = scopes.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "repository:localhost:5000/a/b:pull,push",
                "registry:catalog:*",
                "repository:x:"
            ]
        );
        for text in ["repository", "repository:a", ":a:pull", "repository::pull"] {
            assert!(text.parse::<ResourceScope>().is_err(), "{text}");
        }
    }
}
