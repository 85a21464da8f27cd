//! Interleaved rounds: each contestant in turn, round by round, so that what the machine does besides hits all.

use anyhow::{Context, Result};

use crate::disk::Disk;
use crate::load::Work;
use crate::process::Server;
use crate::say;

/// One of those that are compared.
pub(crate) struct Contestant<'run> {
    pub(crate) name: String,
    /// Whose processor time and memory count.
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
}

/// What was found out about one contestant.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// One per round.
    pub(crate) samples: Vec<f64>,
    pub(crate) cpu_ms_per_operation: Option<f64>,
    pub(crate) rss_bytes_max: Option<u64>,
}

/// A demand on a ratio.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) subject: String,
    pub(crate) against: String,
    pub(crate) ratio: Ratio,
    /// The row that no program can be asked to exceed.
    pub(crate) ceiling: Option<String>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Ratio {
    AtLeast(f64),
    AtMost(f64),
}

#[derive(Clone, Debug)]
pub(crate) struct Measurement {
    pub(crate) title: String,
    pub(crate) unit: Unit,
    pub(crate) rows: Vec<Row>,
    pub(crate) bars: Vec<Bar>,
}

/// Runs the rounds. Round 0 warms up and doesn't count.
pub(crate) fn measure(
    title: &str,
    unit: Unit,
    rounds: u64,
    disk: &Disk,
    contestants: &mut [Contestant<'_>],
) -> Result<Measurement> {
    let mut rows: Vec<Row> = contestants.iter().map(empty_row).collect();
    let mut operations = vec![0; contestants.len()];
    for round in 0..=rounds {
        for place in 0..contestants.len() {
            // Another one begins each round.
            let index = (place + round as usize) % contestants.len();
            let contestant = &mut contestants[index];
            disk.settle()?;
            let before = contestant.server.map(Server::usage).transpose()?;
            let work = (contestant.act)(round).with_context(|| format!("{title}: {}", contestant.name))?;
            let after = contestant.server.map(Server::usage).transpose()?;
            if round == 0 {
                continue;
            }
            let row = &mut rows[index];
            row.samples.push(sample(unit, work));
            operations[index] += work.operations;
            if let (Some(before), Some(after)) = (before, after) {
                *row.cpu_ms_per_operation.get_or_insert(0.0) +=
                    (after.cpu_seconds - before.cpu_seconds) * 1000.0;
                row.rss_bytes_max = row.rss_bytes_max.max(Some(after.rss_bytes));
            }
        }
    }
    for (row, operations) in rows.iter_mut().zip(operations) {
        row.cpu_ms_per_operation = row
            .cpu_ms_per_operation
            .map(|total| total / operations.max(1) as f64);
        say(&format!("{title}: {} {:.2}", row.name, median(&row.samples)));
    }
    Ok(Measurement {
        title: title.to_owned(),
        unit,
        rows,
        bars: Vec::new(),
    })
}

fn empty_row(contestant: &Contestant<'_>) -> Row {
    Row {
        name: contestant.name.clone(),
        samples: Vec::new(),
        cpu_ms_per_operation: None,
        rss_bytes_max: None,
    }
}

fn sample(unit: Unit, work: Work) -> f64 {
    let seconds = work.elapsed.as_secs_f64();
    match unit {
        Unit::PerSecond => work.operations as f64 / seconds,
        Unit::Milliseconds => seconds * 1000.0 / work.operations as f64,
    }
}

impl Measurement {
    /// Demands something of layeryard's row against another.
    pub(crate) fn with_bar(mut self, subject: &str, against: &str, ratio: Ratio) -> Self {
        self.bars.push(Bar {
            subject: subject.into(),
            against: against.into(),
            ratio,
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
        Some([median(&ratios), least(&ratios), most(&ratios)])
    }
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
        let [ratio, ..] = measurement.ratio(&self.subject, &self.against)?;
        let passed = match self.ratio {
            Ratio::AtLeast(bar) => ratio >= bar,
            Ratio::AtMost(bar) => ratio <= bar,
        };
        if passed {
            return Some(Verdict::Pass);
        }
        let share = |name: &String| {
            let [of_ceiling, ..] = measurement.ratio(&self.subject, name)?;
            let [demanded, ..] = measurement.ratio(&self.against, name)?;
            matches!(self.ratio, Ratio::AtLeast(bar) if demanded * bar > 1.0).then_some(of_ceiling)
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
    use super::*;

    fn measurement(ours: f64, theirs: f64, disk: f64) -> Measurement {
        let row = |name: &str, value: f64| Row {
            name: name.into(),
            samples: vec![value, value * 2.0, value * 3.0],
            cpu_ms_per_operation: None,
            rss_bytes_max: None,
        };
        let rows = vec![row("ours", ours), row("theirs", theirs), row("disk", disk)];
        let unit = Unit::PerSecond;
        Measurement {
            title: "t".into(),
            unit,
            rows,
            bars: Vec::new(),
        }
        .with_bar("ours", "theirs", Ratio::AtLeast(3.0))
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
    fn medians() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }
}
