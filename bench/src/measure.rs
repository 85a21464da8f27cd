//! Interleaved rounds: each contestant in turn, round by round, so that what the machine does besides hits all.

use anyhow::{Context, Result};

use crate::disk::Disk;
use crate::load::Work;
use crate::process::{Server, usage_of_tree};
use crate::say;

/// One of those that are compared.
pub(crate) struct Contestant<'run> {
    pub(crate) name: String,
    /// Whose processor time and memory count; without one, the processor time of the bench.
    pub(crate) server: Option<&'run Server>,
    /// A round; gets its number.
    pub(crate) act: Box<dyn FnMut(u64) -> Result<Work> + 'run>,
}

impl<'run> Contestant<'run> {
    pub(crate) fn new(name: impl Into<String>, act: impl FnMut(u64) -> Result<Work> + 'run) -> Self {
        Self {
            name: name.into(),
            server: None,
            act: Box::new(act),
        }
    }

    pub(crate) fn of(server: &'run Server, act: impl FnMut(u64) -> Result<Work> + 'run) -> Self {
        Self {
            server: Some(server),
            ..Self::new(server.name, act)
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    PerSecond,
    Milliseconds,
    /// Of memory; a row's samples are given, not made of work.
    Mebibytes,
}

/// What was found out about one contestant.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// One per round.
    pub(crate) samples: Vec<f64>,
    pub(crate) operations: u64,
    pub(crate) cpu_seconds: f64,
    pub(crate) rss_bytes_max: Option<u64>,
}

/// A round of one contestant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) work: Work,
    pub(crate) cpu_seconds: f64,
    pub(crate) rss_bytes: Option<u64>,
}

/// A demand on a row, or on its ratio to another.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) subject: String,
    pub(crate) against: Option<String>,
    pub(crate) demand: Demand,
    /// The row that no program can be asked to exceed.
    pub(crate) ceiling: Option<String>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Demand {
    AtLeast(f64),
    AtMost(f64),
}

#[derive(Clone, Debug)]
pub(crate) struct Measurement {
    pub(crate) title: String,
    pub(crate) unit: Unit,
    pub(crate) rows: Vec<Row>,
    pub(crate) bars: Vec<Bar>,
    /// What a plot shows of it: a size and the two rows whose ratio belongs to it.
    pub(crate) points: Vec<(u64, String, String)>,
}

/// Runs the rounds. Round 0 warms up and doesn't count.
pub(crate) fn measure(
    title: &str,
    unit: Unit,
    rounds: u64,
    disk: &Disk,
    contestants: &mut [Contestant<'_>],
) -> Result<Measurement> {
    let mut rows: Vec<Row> = contestants.iter().map(|it| Row::new(&it.name)).collect();
    for round in 0..=rounds {
        for place in 0..contestants.len() {
            // Another one begins each round.
            let index = (place + round as usize) % contestants.len();
            let contestant = &mut contestants[index];
            disk.settle()?;
            let act = || (contestant.act)(round);
            let done = watched(contestant.server, act);
            let done = done.with_context(|| format!("{title}: {}", contestant.name))?;
            if round > 0 {
                rows[index].add(unit, done);
            }
        }
    }
    Ok(Measurement::new(title, unit, rows))
}

/// Does something and looks what that cost the server; without one, the bench itself and what it started.
pub(crate) fn watched(server: Option<&Server>, act: impl FnOnce() -> Result<Work>) -> Result<Round> {
    let usage = || server.map_or_else(|| usage_of_tree(std::process::id()), Server::usage);
    let before = usage()?;
    let work = act()?;
    let after = usage()?;
    Ok(Round {
        work,
        cpu_seconds: after.cpu_seconds - before.cpu_seconds,
        rss_bytes: server.map(|_| after.rss_bytes),
    })
}

impl Round {
    /// This and more of the same, one after the other.
    pub(crate) fn and(self, more: Self) -> Self {
        Self {
            work: Work {
                operations: self.work.operations + more.work.operations,
                elapsed: self.work.elapsed + more.work.elapsed,
            },
            cpu_seconds: self.cpu_seconds + more.cpu_seconds,
            rss_bytes: self.rss_bytes.max(more.rss_bytes),
        }
    }
}

impl Row {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            samples: Vec::new(),
            operations: 0,
            cpu_seconds: 0.0,
            rss_bytes_max: None,
        }
    }

    pub(crate) fn add(&mut self, unit: Unit, round: Round) {
        self.samples.push(sample(unit, round.work));
        self.operations += round.work.operations;
        self.cpu_seconds += round.cpu_seconds;
        self.rss_bytes_max = self.rss_bytes_max.max(round.rss_bytes);
    }

    pub(crate) fn cpu_ms_per_operation(&self) -> Option<f64> {
        (self.operations > 0).then(|| self.cpu_seconds * 1000.0 / self.operations as f64)
    }
}

fn sample(unit: Unit, work: Work) -> f64 {
    let seconds = work.elapsed.as_secs_f64();
    match unit {
        Unit::PerSecond => work.operations as f64 / seconds,
        Unit::Milliseconds => seconds * 1000.0 / work.operations as f64,
        Unit::Mebibytes => f64::NAN,
    }
}

impl Measurement {
    pub(crate) fn new(title: &str, unit: Unit, rows: Vec<Row>) -> Self {
        for row in &rows {
            say(&format!("{title}: {} {:.2}", row.name, median(&row.samples)));
        }
        Self {
            title: title.to_owned(),
            unit,
            rows,
            bars: Vec::new(),
            points: Vec::new(),
        }
    }

    /// Demands something of a row's ratio to another.
    pub(crate) fn with_bar(mut self, subject: &str, against: &str, demand: Demand) -> Self {
        self.bars.push(Bar {
            subject: subject.into(),
            against: Some(against.into()),
            demand,
            ceiling: None,
        });
        self
    }

    /// Demands something of a row by itself.
    pub(crate) fn with_limit(mut self, subject: &str, demand: Demand) -> Self {
        self.bars.push(Bar {
            subject: subject.into(),
            against: None,
            demand,
            ceiling: None,
        });
        self
    }

    /// The last bar counts only as far as this row goes.
    pub(crate) fn below(mut self, ceiling: &str) -> Self {
        if let Some(bar) = self.bars.last_mut() {
            bar.ceiling = Some(ceiling.into());
        }
        self
    }

    pub(crate) fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// The ratio of two rows, round by round: median, least and most.
    pub(crate) fn ratio(&self, subject: &str, against: &str) -> Option<[f64; 3]> {
        let (subject, against) = (self.row(subject)?, self.row(against)?);
        let ratios: Vec<f64> = subject
            .samples
            .iter()
            .zip(&against.samples)
            .map(|(a, b)| a / b)
            .collect();
        Some(spread(&ratios))
    }

    /// What a bar is about: median, least and most.
    pub(crate) fn figure(&self, bar: &Bar) -> Option<[f64; 3]> {
        match &bar.against {
            Some(against) => self.ratio(&bar.subject, against),
            None => Some(spread(&self.row(&bar.subject)?.samples)),
        }
    }
}

fn spread(samples: &[f64]) -> [f64; 3] {
    [median(samples), least(samples), most(samples)]
}

/// How a bar came out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    Pass,
    Fail,
    /// What the bar demands is more than the ceiling's row does; this is the share of the ceiling that was reached.
    BeyondCeiling(f64),
}

impl Bar {
    pub(crate) fn verdict(&self, measurement: &Measurement) -> Option<Verdict> {
        let [figure, ..] = measurement.figure(self)?;
        let passed = match self.demand {
            Demand::AtLeast(bar) => figure >= bar,
            Demand::AtMost(bar) => figure <= bar,
        };
        if passed {
            return Some(Verdict::Pass);
        }
        let share = |name: &String| {
            let [of_ceiling, ..] = measurement.ratio(&self.subject, name)?;
            let [demanded, ..] = measurement.ratio(self.against.as_ref()?, name)?;
            matches!(self.demand, Demand::AtLeast(bar) if demanded * bar > 1.0).then_some(of_ceiling)
        };
        let beyond = self.ceiling.as_ref().and_then(share);
        Some(beyond.map_or(Verdict::Fail, Verdict::BeyondCeiling))
    }
}

pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[length / 2],
        length => f64::midpoint(sorted[length / 2 - 1], sorted[length / 2]),
    }
}

pub(crate) fn least(samples: &[f64]) -> f64 {
    samples.iter().copied().fold(f64::INFINITY, f64::min)
}

pub(crate) fn most(samples: &[f64]) -> f64 {
    samples.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn measurement(ours: f64, theirs: f64, disk: f64) -> Measurement {
        let row = |name: &str, value: f64| Row {
            samples: vec![value, value * 2.0, value * 3.0],
            ..Row::new(name)
        };
        let rows = vec![row("ours", ours), row("theirs", theirs), row("disk", disk)];
        Measurement::new("t", Unit::PerSecond, rows)
            .with_bar("ours", "theirs", Demand::AtLeast(3.0))
            .below("disk")
    }

    fn verdict(measurement: &Measurement) -> Option<Verdict> {
        measurement.bars[0].verdict(measurement)
    }

    #[test]
    fn a_bar_beyond_the_disk_is_not_a_failure() {
        assert_eq!(verdict(&measurement(310.0, 100.0, 1000.0)), Some(Verdict::Pass));
        assert_eq!(verdict(&measurement(290.0, 100.0, 1000.0)), Some(Verdict::Fail));
        assert_eq!(
            verdict(&measurement(125.0, 100.0, 250.0)),
            Some(Verdict::BeyondCeiling(0.5))
        );
    }

    #[test]
    fn a_limit_is_of_the_median_itself() {
        let limited = |most| {
            let measurement = measurement(10.0, 1.0, 1.0).with_limit("ours", Demand::AtMost(most));
            measurement.bars[1].verdict(&measurement)
        };
        assert_eq!(limited(20.0), Some(Verdict::Pass));
        assert_eq!(limited(19.0), Some(Verdict::Fail));
    }

    #[test]
    fn the_processor_time_is_that_of_all_rounds() {
        let mut row = Row::new("ours");
        assert_eq!(row.cpu_ms_per_operation(), None);
        for operations in [3, 1] {
            let work = Work {
                operations,
                elapsed: Duration::from_secs(2),
            };
            let round = Round {
                work,
                cpu_seconds: 0.5,
                rss_bytes: None,
            };
            row.add(Unit::PerSecond, round);
        }
        assert_eq!(row.samples, [1.5, 0.5]);
        assert_eq!(row.cpu_ms_per_operation(), Some(250.0));
    }

    #[test]
    fn medians() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }
}
