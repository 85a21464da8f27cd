//! The tables of README.md.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::measure::{Bar, Demand, Measurement, Row, Unit, Verdict, least, median, most};
use crate::plot::{Line, svg};

const END: &str = "<!-- end of results -->";

/// A measurement that didn't come about.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) name: &'static str,
    pub(crate) reason: String,
}

/// All that a run found out.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) machine: Vec<(&'static str, String)>,
    pub(crate) measurements: Vec<Measurement>,
    pub(crate) failures: Vec<Failure>,
}

impl Report {
    pub(crate) fn to_markdown(&self) -> String {
        let mut text = String::from("### Machine\n\n");
        for (name, value) in &self.machine {
            let _ = writeln!(text, "- {name}: {value}");
        }
        text.push_str("\n### Bars\n\n");
        text.push_str(
            "| Measurement | Program | Against | Ratio | Least and most of the rounds | Bar | Result |\n",
        );
        text.push_str("|---|---|---|--:|---|---|---|\n");
        for measurement in &self.measurements {
            for bar in &measurement.bars {
                bar_line(&mut text, measurement, bar);
            }
        }
        for Failure { name, reason } in &self.failures {
            let _ = writeln!(
                text,
                "| {name} | | | | | | not measured: {} |",
                reason.replace(['|', '\n'], " ")
            );
        }
        text.push_str("\n### Figures\n\n");
        text.push_str(
            "| Measurement | Program | Median | Least – most | Unit | CPU per operation, ms | RSS, MiB |\n",
        );
        text.push_str("|---|---|--:|--:|---|--:|--:|\n");
        for measurement in &self.measurements {
            for row in &measurement.rows {
                figure_line(&mut text, measurement, row);
            }
        }
        text
    }

    /// Replaces what stands between a group's markers in a file; a plot goes beside it.
    pub(crate) fn write_into(&self, path: &Path, group: &str) -> Result<()> {
        let shown = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
        let mut results = self.to_markdown();
        if let Some(plot) = self.plot() {
            let name = format!("{group}.svg");
            fs::write(path.with_file_name(&name), plot).with_context(|| format!("cannot write {name}"))?;
            let _ = write!(results, "\n![Rates by size]({name})\n");
        }
        let text = replace_results(&text, group, &results)
            .with_context(|| format!("{shown} has no markers of {group}"))?;
        fs::write(path, text).with_context(|| format!("cannot write {shown}"))
    }

    /// The rate at each size as a part of that of the smallest.
    fn plot(&self) -> Option<String> {
        let point = |m: &Measurement, (size, subject, against): &(u64, String, String)| {
            let [ratio, ..] = m.ratio(subject, against)?;
            Some((*size as f64, ratio))
        };
        let lines = self
            .measurements
            .iter()
            .filter(|m| !m.points.is_empty())
            .map(|m| Line {
                name: m.title.clone(),
                points: m.points.iter().filter_map(|at| point(m, at)).collect(),
            });
        let lines: Vec<Line> = lines.collect();
        (!lines.is_empty()).then(|| svg(&lines))
    }

    pub(crate) fn bars_missed(&self) -> usize {
        let missed = |m: &Measurement| {
            m.bars
                .iter()
                .filter(|bar| bar.verdict(m) == Some(Verdict::Fail))
                .count()
        };
        self.measurements.iter().map(missed).sum()
    }
}

fn begin(group: &str) -> String {
    format!("<!-- results of {group}: written by the bench, not by hand -->\n")
}

fn replace_results(text: &str, group: &str, results: &str) -> Option<String> {
    let begin = begin(group);
    let start = text.find(&begin)? + begin.len();
    let end = start + text[start..].find(END)?;
    Some(format!("{}\n{results}\n{}", &text[..start], &text[end..]))
}

fn bar_line(text: &mut String, measurement: &Measurement, bar: &Bar) {
    let Some([figure, from, to]) = measurement.figure(bar) else {
        return;
    };
    let (sign, demanded) = match bar.demand {
        Demand::AtLeast(demanded) => ("≥", demanded),
        Demand::AtMost(demanded) => ("≤", demanded),
    };
    let result = match bar.verdict(measurement) {
        Some(Verdict::Pass) => "pass".to_owned(),
        Some(Verdict::Fail) => "**fail**".to_owned(),
        Some(Verdict::BeyondCeiling(share)) => {
            let ceiling = bar.ceiling.as_deref().unwrap_or_default();
            format!("the bar is beyond {ceiling}; {share:.2} of {ceiling} reached")
        }
        None => "no figure".to_owned(),
    };
    let (title, subject) = (&measurement.title, &bar.subject);
    let _ = match &bar.against {
        Some(against) => writeln!(
            text,
            "| {title} | {subject} | {against} | {figure:.2} | {from:.2} – {to:.2} | {sign} {demanded} | {result} |",
        ),
        None => writeln!(
            text,
            "| {title} | {subject} | | {} | {} – {} | {sign} {demanded} {} | {result} |",
            number(figure),
            number(from),
            number(to),
            measurement.unit.name()
        ),
    };
}

fn figure_line(text: &mut String, measurement: &Measurement, row: &Row) {
    let unit = measurement.unit.name();
    let cpu = row.cpu_ms_per_operation().map_or_else(String::new, number);
    let rss = row
        .rss_bytes_max
        .map_or_else(String::new, |bytes| (bytes >> 20).to_string());
    let (middle, from, to) = (median(&row.samples), least(&row.samples), most(&row.samples));
    let _ = writeln!(
        text,
        "| {} | {} | {} | {} – {} | {unit} | {cpu} | {rss} |",
        measurement.title,
        row.name,
        number(middle),
        number(from),
        number(to)
    );
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::PerSecond => "per second",
            Self::Milliseconds => "ms",
            Self::Mebibytes => "MiB",
        }
    }
}

/// Three digits that count; more if they stand before the point.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_results_are_replaced() {
        let (one, two) = (begin("one"), begin("two"));
        let text = |results| format!("before\n{one}kept\n{END}\n{two}{results}\n{END}\nafter\n");
        let replaced = replace_results(&text("old"), "two", "new").expect("has markers");
        assert_eq!(replaced, text("\nnew"));
        assert!(replace_results(&text("old"), "three", "new").is_none());
    }
}
