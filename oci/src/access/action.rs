//! What can be done with a repository.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    Pull,
    Push,
    Delete,
    /// Rules, restoring, and what else concerns those who run a repository; includes the others.
    Admin,
}

/// A set of actions.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Actions(u8);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("action {0:?} is unknown: there are pull, push, delete and admin")]
pub struct ActionError(String);

impl Action {
    const ALL: [Self; 4] = [Self::Pull, Self::Push, Self::Delete, Self::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
            Self::Admin => "admin",
        }
    }

    fn bit(self) -> u8 {
        match self {
            Self::Pull => 1,
            Self::Push => 2,
            Self::Delete => 4,
            Self::Admin => 8,
        }
    }
}

impl Actions {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self(15);

    /// Whether the set allows an action: who may administrate may do everything.
    pub fn allow(self, action: Action) -> bool {
        self.0 & (action.bit() | Action::Admin.bit()) != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn iter(self) -> impl Iterator<Item = Action> {
        Action::ALL
            .into_iter()
            .filter(move |action| self.0 & action.bit() != 0)
    }
}

impl FromIterator<Action> for Actions {
    fn from_iter<I: IntoIterator<Item = Action>>(actions: I) -> Self {
        Self(actions.into_iter().fold(0, |bits, action| bits | action.bit()))
    }
}

impl FromStr for Action {
    type Err = ActionError;

    fn from_str(text: &str) -> Result<Self, ActionError> {
        Self::ALL
            .into_iter()
            .find(|action| action.as_str() == text)
            .ok_or_else(|| ActionError(text.to_owned()))
    }
}

/// `pull,push`.
impl FromStr for Actions {
    type Err = ActionError;

    fn from_str(text: &str) -> Result<Self, ActionError> {
        text.split(',').map(|action| action.trim().parse()).collect()
    }
}

/// As a list: `["pull", "push"]`.
impl Serialize for Actions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Actions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = Vec::<Action>::deserialize(deserializer)?;
        Ok(list.into_iter().collect())
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, action) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{action}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Actions({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_written_and_read() {
        let set: Actions = "push, pull".parse().unwrap();
        assert_eq!(set.to_string(), "pull,push");
        assert!(set.allow(Action::Push) && !set.allow(Action::Delete) && !set.allow(Action::Admin));
        assert!("pull,pussh".parse::<Actions>().is_err());
        assert!("".parse::<Actions>().is_err());
        let admin: Actions = "admin".parse().unwrap();
        assert!(Action::ALL.into_iter().all(|action| admin.allow(action)));
        assert_eq!(admin.to_string(), "admin");
        assert_eq!(set.and(admin).to_string(), "pull,push,admin");
    }
}
