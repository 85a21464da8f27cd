//! The tables of README.md.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::measure::{Bar, Measurement, Ratio, Row, Unit, Verdict, least, median, most};

const BEGIN: &str = "<!-- results: written by the bench, not by hand -->\n";
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
        text.push_str("| Measurement | Against | Ratio | Least and most of the rounds | Bar | Result |\n");
        text.push_str("|---|---|---|---|---|---|\n");
        for measurement in &self.measurements {
            for bar in &measurement.bars {
                bar_line(&mut text, measurement, bar);
            }
        }
        for Failure { name, reason } in &self.failures {
            let _ = writeln!(
                text,
                "| {name} | | | | | not measured: {} |",
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

    /// Replaces what stands between the markers of a file.
    pub(crate) fn write_into(&self, path: &Path) -> Result<()> {
        let shown = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
        let text =
            replace_results(&text, &self.to_markdown()).with_context(|| format!("{shown} has no markers"))?;
        fs::write(path, text).with_context(|| format!("cannot write {shown}"))
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

fn replace_results(text: &str, results: &str) -> Option<String> {
    let start = text.find(BEGIN)? + BEGIN.len();
    let end = start + text[start..].find(END)?;
    Some(format!("{}\n{results}\n{}", &text[..start], &text[end..]))
}

fn bar_line(text: &mut String, measurement: &Measurement, bar: &Bar) {
    let Some([ratio, from, to]) = measurement.ratio(&bar.subject, &bar.against) else {
        return;
    };
    let demand = match bar.ratio {
        Ratio::AtLeast(demanded) => format!("≥ {demanded}"),
        Ratio::AtMost(demanded) => format!("≤ {demanded}"),
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
    let Measurement { title, .. } = measurement;
    let _ = writeln!(
        text,
        "| {title} | {} | {ratio:.2} | {from:.2} – {to:.2} | {demand} | {result} |",
        bar.against
    );
}

fn figure_line(text: &mut String, measurement: &Measurement, row: &Row) {
    let unit = match measurement.unit {
        Unit::PerSecond => "per second",
        Unit::Milliseconds => "ms",
    };
    let cpu = row.cpu_ms_per_operation.map_or_else(String::new, number);
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
        let text = format!("before\n{BEGIN}old\n{END}\nafter\n");
        let replaced = replace_results(&text, "new").expect("has markers");
        assert_eq!(replaced, format!("before\n{BEGIN}\nnew\n{END}\nafter\n"));
        assert!(replace_results("no markers", "new").is_none());
    }
}
