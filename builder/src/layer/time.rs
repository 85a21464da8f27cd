//! The time of each entry: real inside a build, logical in a layer (decisions/builder.md, section 4).
//!
//! A layer has one logical time T in the past, made from its seed. Whatever the step wrote carries T; what it only
//! copied up, or copied with its times, carries the time of the layer it came from; times that a command set by hand
//! stay. On disk the same entries carry instants: those that stand for a T lie within the `times` of their snapshot,
//! whether the snapshot was written by a step or unpacked later, so both read alike.
//!
//! Some tools cut times to whole seconds when they copy (busybox's `cp -p`). Such a copy can't be traced to its layer
//! when several were written within a second, so it counts as written by the step that copied: the same on every run,
//! whether or not the second it was cut to lies within the layer's instants.

use std::sync::Arc;

use oci::History;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::snapshot::{Snapshot, Times};

/// 1980-02-01: tools refuse or mangle older times (zip archives begin in 1980).
pub const EPOCH_FLOOR: i64 = 318_211_200;
/// Logical times are spread over this many seconds before the epoch of the build (about 24 days).
const SPREAD_SECONDS: u64 = 1 << 21;
const NANOSECONDS: i64 = 1_000_000_000;

/// The logical times of a layer and of those below it.
#[derive(Clone, Debug)]
pub struct LayerTimes {
    /// The layer's T, seconds since 1970.
    pub own: i64,
    /// From the step's start to its end.
    pub step: Times,
    pub below: ChainTimes,
}

/// What instants on disk stand for in a chain of snapshots.
#[derive(Clone, Debug, Default)]
pub struct ChainTimes(Vec<(Times, i64)>);

impl LayerTimes {
    /// The time in the layer of an entry with this modification time (nanoseconds) on disk.
    pub fn layer_time(&self, mtime: i64) -> u64 {
        let written = self.step.contains(mtime) || is_cut_from(&self.step, mtime);
        let seconds = if written || self.below.may_be_cut(mtime) {
            self.own
        } else {
            let traced = self.below.logical(mtime);
            traced.unwrap_or_else(|| mtime.div_euclid(NANOSECONDS))
        };
        seconds.max(0) as u64
    }
}

/// Whether a whole second may be what a tool left of an instant within bounds.
fn is_cut_from(times: &Times, mtime: i64) -> bool {
    mtime % NANOSECONDS == 0 && mtime <= times.high && mtime + NANOSECONDS > times.low
}

impl ChainTimes {
    pub fn of(top: Option<&Arc<Snapshot>>) -> Self {
        let times = std::iter::successors(top, |snapshot| snapshot.parent()).filter_map(|snapshot| {
            let meta = snapshot.meta();
            Some((meta.times?, meta.layer_time?))
        });
        Self(times.collect())
    }

    /// The logical time that an instant stands for; none if it is a time of its own.
    pub fn logical(&self, mtime: i64) -> Option<i64> {
        self.0
            .iter()
            .find(|(times, _)| times.contains(mtime))
            .map(|(_, time)| *time)
    }

    /// Whether an instant stands for some layer's time, or may be the rest of one that did.
    pub fn stands_for_a_layer(&self, mtime: i64) -> bool {
        self.logical(mtime).is_some() || self.may_be_cut(mtime)
    }

    fn may_be_cut(&self, mtime: i64) -> bool {
        self.0.iter().any(|(times, _)| is_cut_from(times, mtime))
    }
}

/// E0: the newest time that a base names, not before the floor.
pub fn base_epoch(created: Option<&str>, history: &[History]) -> i64 {
    std::iter::once(created)
        .chain(history.iter().map(|entry| entry.created.as_deref()))
        .flatten()
        .filter_map(|text| OffsetDateTime::parse(text, &Rfc3339).ok())
        .map(OffsetDateTime::unix_timestamp)
        .fold(EPOCH_FLOOR, i64::max)
}

/// T: always before the epoch, another one whenever the seed changes; a SOURCE_DATE_EPOCH bounds it.
pub fn layer_time(epoch: i64, seed: &[u8; 32], source_date_epoch: Option<i64>) -> i64 {
    let mut number = [0; 8];
    number.copy_from_slice(&seed[..8]);
    let time = epoch - (u64::from_be_bytes(number) % SPREAD_SECONDS) as i64;
    source_date_epoch.map_or(time, |limit| time.min(limit))
}

/// As configurations and histories write times; the floor if it is out of range.
pub fn rfc3339(seconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| "1980-02-01T00:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = NANOSECONDS;

    fn times() -> LayerTimes {
        LayerTimes {
            own: 500,
            step: Times {
                low: 3000 * S,
                high: 3010 * S,
            },
            below: ChainTimes(vec![
                (
                    Times {
                        low: 2000 * S + 5,
                        high: 2000 * S + 5,
                    },
                    400,
                ),
                (
                    Times {
                        low: 1000 * S,
                        high: 1010 * S,
                    },
                    300,
                ),
            ]),
        }
    }

    #[test]
    fn what_the_step_wrote_carries_the_layers_time() {
        assert_eq!(times().layer_time(3000 * S), 500);
        assert_eq!(times().layer_time(3010 * S), 500);
    }

    #[test]
    fn copies_with_their_times_carry_the_time_of_where_they_came_from() {
        assert_eq!(times().layer_time(1005 * S + 1), 300);
        assert_eq!(times().layer_time(2000 * S + 5), 400);
    }

    #[test]
    fn times_set_by_hand_stay() {
        assert_eq!(times().layer_time(1999 * S), 1999);
        assert_eq!(times().layer_time(2000 * S + 6), 2000);
        assert_eq!(times().layer_time(123 * S + 999), 123);
        assert_eq!(times().layer_time(9_000_000_000 * S), 9_000_000_000);
        assert_eq!(times().layer_time(-5 * S), 0);
    }

    #[test]
    fn a_copy_cut_to_seconds_counts_as_written_by_the_step() {
        assert_eq!(
            times().layer_time(2000 * S),
            500,
            "cut from a lower layer's instant"
        );
        assert_eq!(times().layer_time(1005 * S), 500, "the same, within its instants");
        let mut late = times();
        late.step = Times {
            low: 3000 * S + 7,
            high: 3000 * S + 9,
        };
        assert_eq!(late.layer_time(3000 * S), 500, "cut from the step's own");
        assert!(late.below.stands_for_a_layer(2000 * S) && !late.below.stands_for_a_layer(1999 * S));
    }

    #[test]
    fn the_epoch_is_the_newest_of_the_bases_times() {
        let history = [History {
            created: Some("2024-05-01T10:00:00.5Z".into()),
            ..History::default()
        }];
        assert_eq!(
            base_epoch(Some("2024-05-01T09:00:00+02:00"), &history),
            1_714_557_600
        );
        assert_eq!(base_epoch(None, &[]), EPOCH_FLOOR);
        assert_eq!(base_epoch(Some("0001-01-01T00:00:00Z"), &[]), EPOCH_FLOOR);
        assert_eq!(rfc3339(EPOCH_FLOOR), "1980-02-01T00:00:00Z");
    }

    #[test]
    fn a_layers_time_is_past_and_follows_its_seed() {
        let (a, b) = (blake3::hash(b"a"), blake3::hash(b"b"));
        let (at, bt) = (
            layer_time(EPOCH_FLOOR, a.as_bytes(), None),
            layer_time(EPOCH_FLOOR, b.as_bytes(), None),
        );
        assert_ne!(at, bt);
        assert!(at <= EPOCH_FLOOR && at > EPOCH_FLOOR - SPREAD_SECONDS as i64);
        assert_eq!(layer_time(EPOCH_FLOOR, a.as_bytes(), Some(7)), 7);
    }
}
