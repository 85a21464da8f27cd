//! Online garbage collection and its undoing: the contract of both databases.
//!
//! Every event that may leave something unneeded sets a time of review on the row itself. A worker looks at rows whose
//! time has come, finds out what still refers to them ([`verdict`]) and deletes, keeps, or puts the review off. Losing
//! the last reference sets a new time, so that a row without one is known to be needed.
//!
//! What nothing refers to any more is kept for the review delay after that, since somebody may have been told a moment
//! before that it is here and be about to refer to it.

pub(in crate::metadata) mod facts;
pub(in crate::metadata) mod pages;
pub(in crate::metadata) mod sql;
mod trash;
mod verdict;

use std::time::Duration;

use async_trait::async_trait;
use oci::{Digest, RepoName, Tag};

use super::Result;
pub(crate) use trash::{
    DeletedTags, Trash, TrashCursor, TrashPage, TrashedManifest, TrashedTag, Undelete, UndeleteOutcome,
};
pub(crate) use verdict::{Fate, LinkFacts, ManifestFacts, Reason, Verdict};

/// Collecting, and telling why.
#[async_trait]
pub(crate) trait Collection: Send + Sync {
    /// To be called before every round: notes that time goes on. Some: why nothing may be collected, until it is
    /// confirmed.
    async fn begin_collection(&self) -> Result<Option<String>>;
    /// Why collection is paused.
    async fn collection_paused(&self) -> Result<Option<String>>;
    /// Lets a paused collection go on.
    async fn confirm_collection(&self) -> Result<()>;
    /// Decides about some manifests that are due.
    async fn review_manifests(&self) -> Result<Reviewed>;
    /// Decides about some links of blobs that are due. A blob without links is doomed.
    async fn review_links(&self) -> Result<Reviewed>;
    /// Deletes at most `limit` cache records and as many memos that nobody has used for so long; returns how many of
    /// both.
    async fn expire_cache(&self, unused: Duration, limit: u32) -> Result<u64>;
    /// Keeps a manifest for `holder`, who is about to use what it refers to, for `life` from now.
    async fn hold(&self, repository: &RepoName, digest: &Digest, holder: &str, life: Duration) -> Result<()>;
    /// Forgets holds that are over and what happened to tags longer ago than `history`, at most `limit` of each; returns
    /// how many.
    async fn forget(&self, history: Duration, limit: u32) -> Result<u64>;
    /// What waits for a review.
    async fn review_queue(&self) -> Result<ReviewQueue>;
    /// Tells the fate of things, a page at a time.
    async fn explain(&self, question: Explain) -> Result<ExplainPage>;
    /// Adds to the manifests' counts of pulls. Not durable.
    async fn record_pulls(&self, pulls: Vec<Pulls>) -> Result<()>;
}

/// What a batch of reviews came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reviewed {
    /// Rows that were due and are decided.
    pub(crate) decided: u64,
    /// What is gone: nobody finds it any more.
    pub(crate) removed: Vec<(RepoName, Digest)>,
    /// Verdicts that kept something, by the word for their reason.
    pub(crate) kept: Vec<&'static str>,
    /// Objects that were doomed, and their bytes.
    pub(crate) doomed: u64,
    pub(crate) doomed_bytes: u64,
}

/// What is due, counted up to a limit, and for how long the oldest has been.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReviewQueue {
    pub(crate) manifests: u64,
    pub(crate) links: u64,
    pub(crate) oldest_micros: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Manifest,
    Blob,
}

/// Whose fate is asked for.
#[derive(Clone, Debug)]
pub(crate) enum Explain {
    /// Everything that has a time of review, in its order.
    Reviews { after: Option<Cursor>, limit: u32 },
    /// Everything that a repository has.
    Repository {
        repository: RepoName,
        after: Option<Cursor>,
        limit: u32,
    },
    /// The blob and the manifest of one digest.
    One { repository: RepoName, digest: Digest },
}

/// The last row of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) kind: Kind,
    /// The review, zero where they are not the order.
    pub(crate) at: i64,
    pub(crate) repository: i64,
    pub(crate) row: i64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ExplainPage {
    pub(crate) items: Vec<Explained>,
    /// None: that was all.
    pub(crate) next: Option<Cursor>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Explained {
    pub(crate) kind: Kind,
    pub(crate) repository: RepoName,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    /// In the trash, or hidden by a client's deletion.
    pub(crate) deleted: bool,
    /// When it is looked at next, in microseconds since 1970; none: when what needs it goes.
    pub(crate) review_at: Option<i64>,
    pub(crate) verdict: Verdict,
}

/// A tag, how old it is, and when its manifest was pulled last; microseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TagAge {
    pub(crate) name: Tag,
    pub(crate) digest: Digest,
    pub(crate) updated_at: i64,
    pub(crate) pulled_at: Option<i64>,
}

/// How often a manifest was pulled since the last time this was told.
#[derive(Clone, Debug)]
pub(crate) struct Pulls {
    pub(crate) repository: RepoName,
    pub(crate) digest: Digest,
    pub(crate) count: u64,
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            Kind::Manifest => 'm',
            Kind::Blob => 'b',
        };
        write!(f, "{kind}.{}.{}.{}", self.at, self.repository, self.row)
    }
}

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this is no position in a list that the server gave")]
pub(crate) struct CursorError;

impl std::str::FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let parts: Vec<&str> = text.split('.').collect();
        let [kind, at, repository, row] = parts.as_slice() else {
            return Err(CursorError);
        };
        let number = |text: &str| text.parse::<i64>().map_err(|_| CursorError);
        Ok(Self {
            kind: match *kind {
                "m" => Kind::Manifest,
                "b" => Kind::Blob,
                _ => return Err(CursorError),
            },
            at: number(at)?,
            repository: number(repository)?,
            row: number(row)?,
        })
    }
}

/// The clock may not jump further than this between two rounds.
const CLOCK_JUMP_MICROS_MAX: i64 = 30 * 24 * 3_600_000_000;
/// Clocks are set back by a little now and then.
const CLOCK_STEP_MICROS_MAX: i64 = 60_000_000;

/// Why time can't be trusted: it went back, or too far ahead. Zero: there was no round yet.
pub(in crate::metadata) fn clock_fault(last_seen: i64, now: i64) -> Option<String> {
    let days = |micros: i64| micros / (24 * 3_600_000_000);
    if last_seen == 0 {
        return None;
    }
    let passed = now - last_seen;
    if passed < -CLOCK_STEP_MICROS_MAX {
        return Some(format!(
            "the clock went back by {} seconds since the last round",
            -passed / 1_000_000
        ));
    }
    (passed > CLOCK_JUMP_MICROS_MAX).then(|| {
        format!(
            "{} days have passed since the last round: is the clock right?",
            days(passed)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_and_nothing_else_is() {
        let cursor = Cursor {
            kind: Kind::Blob,
            at: 17,
            repository: 3,
            row: 9,
        };
        assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        for bad in ["", "m", "m.1.2", "x.1.2.3", "m.1.2.three", "m.1.2.3.4"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_clock_that_jumps_is_a_fault() {
        const DAY: i64 = 24 * 3_600_000_000;
        let now = 1_000 * DAY;
        assert_eq!(clock_fault(0, now), None, "the first round");
        assert_eq!(clock_fault(now - 29 * DAY, now), None);
        assert_eq!(clock_fault(now + 1_000_000, now), None);
        assert!(clock_fault(now - 31 * DAY, now).unwrap().contains("31 days"));
        assert!(
            clock_fault(now + DAY, now)
                .unwrap()
                .contains("back by 86400 seconds")
        );
    }
}
