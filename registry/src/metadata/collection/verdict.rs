//! Who still needs a manifest or a blob. One function for the workers and for whoever asks why.

use oci::Digest;

/// What is known about a manifest in one moment. Times are microseconds since 1970.
#[derive(Clone, Debug, Default)]
pub(crate) struct ManifestFacts {
    pub(crate) now: i64,
    /// How long what was deleted can be restored.
    pub(crate) window: i64,
    pub(crate) tag: Option<String>,
    /// An index that lists it, in the trash or not.
    pub(crate) parent: Option<Digest>,
    /// What it refers to as its subject, if that exists.
    pub(crate) subject: Option<Digest>,
    pub(crate) deleted_at: Option<i64>,
    pub(crate) pushed_at: i64,
    pub(crate) untagged_at: Option<i64>,
    pub(crate) pulled_at: Option<i64>,
    /// Until when a running build needs it.
    pub(crate) held_until: Option<i64>,
}

/// What is known about a blob in a repository.
#[derive(Clone, Debug, Default)]
pub(crate) struct LinkFacts {
    pub(crate) manifest: Option<Digest>,
    /// A manifest that was stored before the blob came and lists it all the same.
    pub(crate) sparse: Option<Digest>,
    pub(crate) cache_record: Option<String>,
}

/// The first reason that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Tag(String),
    Index(Digest),
    Subject(Digest),
    Trashed,
    Pushed,
    Untagged,
    Pulled,
    Build,
    Manifest(Digest),
    CacheRecord(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) fate: Fate,
    /// None: nothing needs it.
    pub(crate) reason: Option<Reason>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// As long as the reason holds; losing it sets a new review.
    Keep,
    /// Until this time, when it is looked at again.
    KeepUntil(i64),
    Remove,
}

impl Verdict {
    fn keep(reason: Reason) -> Self {
        Self {
            fate: Fate::Keep,
            reason: Some(reason),
        }
    }

    fn until(at: i64, reason: Reason) -> Self {
        Self {
            fate: Fate::KeepUntil(at),
            reason: Some(reason),
        }
    }

    const REMOVE: Self = Self {
        fate: Fate::Remove,
        reason: None,
    };

    /// The review's new time.
    pub(in crate::metadata) fn review_at(&self) -> Option<i64> {
        match self.fate {
            Fate::KeepUntil(at) => Some(at),
            Fate::Keep | Fate::Remove => None,
        }
    }
}

impl Reason {
    /// For counters and answers.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Tag(_) => "tag",
            Self::Index(_) => "index",
            Self::Subject(_) => "subject",
            Self::Trashed => "trashed",
            Self::Pushed => "pushed",
            Self::Untagged => "untagged",
            Self::Pulled => "pulled",
            Self::Build => "build",
            Self::Manifest(_) => "manifest",
            Self::CacheRecord(_) => "cache",
        }
    }

    /// Who it is that refers to it.
    pub(crate) fn by(&self) -> Option<String> {
        match self {
            Self::Tag(name) | Self::CacheRecord(name) => Some(name.clone()),
            Self::Index(digest) | Self::Subject(digest) | Self::Manifest(digest) => Some(digest.to_string()),
            Self::Trashed | Self::Pushed | Self::Untagged | Self::Pulled | Self::Build => None,
        }
    }
}

impl ManifestFacts {
    pub(crate) fn verdict(&self) -> Verdict {
        if let Some(tag) = &self.tag {
            return Verdict::keep(Reason::Tag(tag.clone()));
        }
        if let Some(parent) = self.parent {
            return Verdict::keep(Reason::Index(parent));
        }
        if let (None, Some(subject)) = (self.deleted_at, self.subject) {
            return Verdict::keep(Reason::Subject(subject));
        }
        let (since, reason) = match self.deleted_at {
            Some(deleted_at) => (deleted_at, Reason::Trashed),
            None => self.last_used(),
        };
        if since + self.window > self.now {
            return Verdict::until(since + self.window, reason);
        }
        // Not for ever: who holds it says until when.
        match self.held_until {
            Some(until) if until > self.now => Verdict::until(until, Reason::Build),
            _ => Verdict::REMOVE,
        }
    }

    fn last_used(&self) -> (i64, Reason) {
        let used = [
            (Some(self.pushed_at), Reason::Pushed),
            (self.untagged_at, Reason::Untagged),
            (self.pulled_at, Reason::Pulled),
        ];
        used.into_iter()
            .filter_map(|(at, reason)| Some((at?, reason)))
            .max_by_key(|(at, _)| *at)
            .unwrap_or((self.pushed_at, Reason::Pushed))
    }
}

impl LinkFacts {
    pub(crate) fn verdict(&self) -> Verdict {
        match (self.manifest.or(self.sparse), &self.cache_record) {
            (Some(manifest), _) => Verdict::keep(Reason::Manifest(manifest)),
            (None, Some(key)) => Verdict::keep(Reason::CacheRecord(key.clone())),
            (None, None) => Verdict::REMOVE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_that_holds_decides() {
        let digest = Digest::sha256(b"other");
        let old = ManifestFacts {
            now: 1000,
            window: 100,
            pushed_at: 10,
            ..ManifestFacts::default()
        };
        assert_eq!(old.verdict(), Verdict::REMOVE);
        let with = |change: &dyn Fn(&mut ManifestFacts)| {
            let mut facts = old.clone();
            change(&mut facts);
            facts.verdict()
        };
        let tagged = with(&|facts| {
            facts.tag = Some("v1".into());
            facts.parent = Some(digest);
        });
        assert_eq!(tagged, Verdict::keep(Reason::Tag("v1".into())));
        assert_eq!(
            with(&|f| f.parent = Some(digest)),
            Verdict::keep(Reason::Index(digest))
        );
        assert_eq!(
            with(&|f| f.subject = Some(digest)),
            Verdict::keep(Reason::Subject(digest))
        );
        let trashed_referrer = with(&|facts| {
            facts.subject = Some(digest);
            facts.deleted_at = Some(950);
        });
        assert_eq!(trashed_referrer, Verdict::until(1050, Reason::Trashed));
        assert_eq!(
            with(&|f| f.deleted_at = Some(900)),
            Verdict::REMOVE,
            "the window is over"
        );
        assert_eq!(with(&|f| f.pushed_at = 901), Verdict::until(1001, Reason::Pushed));
        let pulled = with(&|facts| {
            facts.untagged_at = Some(960);
            facts.pulled_at = Some(990);
        });
        assert_eq!(pulled, Verdict::until(1090, Reason::Pulled));
        assert_eq!(
            with(&|f| f.held_until = Some(1005)),
            Verdict::until(1005, Reason::Build)
        );
        assert_eq!(with(&|f| f.held_until = Some(1000)), Verdict::REMOVE);
    }

    #[test]
    fn a_link_lives_by_manifests_and_cache_records() {
        let digest = Digest::sha256(b"image");
        assert_eq!(LinkFacts::default().verdict(), Verdict::REMOVE);
        let sparse = LinkFacts {
            sparse: Some(digest),
            ..LinkFacts::default()
        };
        assert_eq!(sparse.verdict(), Verdict::keep(Reason::Manifest(digest)));
        let cached = LinkFacts {
            cache_record: Some("key".into()),
            ..LinkFacts::default()
        };
        assert_eq!(cached.verdict(), Verdict::keep(Reason::CacheRecord("key".into())));
    }
}
