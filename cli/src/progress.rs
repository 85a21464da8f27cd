//! Progress bars on standard error; nothing where nobody watches.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::output;

const TICK: Duration = Duration::from_millis(100);
const KNOWN: &str = "{spinner} {msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}";
const UNKNOWN: &str = "{spinner} {msg} {bytes} {bytes_per_sec}";

/// One transfer's bar. Clones move the same bar.
#[derive(Clone)]
pub(crate) struct Transfer(ProgressBar);

impl Transfer {
    /// Shows a bar if `wanted` and somebody watches.
    pub(crate) fn start(message: &str, total_bytes: Option<u64>, wanted: bool) -> Self {
        if !wanted || !output::is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = bar(message, total_bytes);
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// A bar among others.
    pub(crate) fn start_in(screen: &MultiProgress, message: &str, total_bytes: Option<u64>) -> Self {
        Self(screen.add(bar(message, total_bytes)))
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    pub(crate) fn set(&self, bytes: u64) {
        self.0.set_position(bytes);
    }

    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

fn bar(message: &str, total_bytes: Option<u64>) -> ProgressBar {
    let bar = match total_bytes {
        Some(total) => ProgressBar::new(total).with_style(style(KNOWN)),
        None => ProgressBar::new_spinner().with_style(style(UNKNOWN)),
    };
    bar.with_message(message.to_owned())
}

/// A template that is a constant, which a test reads.
pub(crate) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_valid() {
        for template in [KNOWN, UNKNOWN] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
