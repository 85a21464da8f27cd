//! A build as a live view: finished steps scroll away above, running ones show their time and their last lines.

use std::collections::HashMap;
use std::time::Duration;

use builder::event::Event;
use indicatif::{MultiProgress, ProgressBar};

use super::clean::clean;
use super::{Board, Renderer};
use crate::progress::{Transfer, style};

const TICK: Duration = Duration::from_millis(100);

pub(crate) struct Live {
    screen: MultiProgress,
    steps: HashMap<usize, StepView>,
    transfers: HashMap<String, Transfer>,
}

/// A running step: its heading and below it the last lines.
struct StepView {
    heading: ProgressBar,
    lines: Vec<ProgressBar>,
}

impl Live {
    pub(crate) fn new() -> Self {
        Self {
            screen: MultiProgress::new(),
            steps: HashMap::new(),
            transfers: HashMap::new(),
        }
    }

    fn print(&self, text: String) {
        // Only fails when the terminal has gone, and then nobody reads it.
        let _ = self.screen.println(text);
    }

    fn start(&mut self, board: &Board, step: usize) {
        let Some(state) = board.step(step) else { return };
        let heading = self
            .screen
            .add(ProgressBar::new_spinner().with_style(style(STEP)));
        heading.set_message(state.heading());
        heading.enable_steady_tick(TICK);
        self.steps.insert(
            step,
            StepView {
                heading,
                lines: Vec::new(),
            },
        );
    }

    fn output(&mut self, board: &Board, step: usize) {
        let (Some(view), Some(state)) = (self.steps.get_mut(&step), board.step(step)) else {
            return;
        };
        let tail: Vec<&str> = state.tail().collect();
        while view.lines.len() < tail.len() {
            let last = view.lines.last().unwrap_or(&view.heading);
            let line = self
                .screen
                .insert_after(last, ProgressBar::new_spinner().with_style(style(LINE)));
            view.lines.push(line);
        }
        for (bar, text) in view.lines.iter().zip(tail) {
            bar.set_message(text.to_owned());
        }
    }

    fn finish(&mut self, board: &Board, step: usize, mark: &str, note: &str) {
        if let Some(view) = self.steps.remove(&step) {
            view.clear();
        }
        if let Some(state) = board.step(step) {
            self.print(format!("{mark} {} {note}", state.heading()));
        }
    }

    fn transfer(&mut self, id: &str, action: &str, done: u64, total: Option<u64>) {
        if total.is_some_and(|total| done >= total) {
            if let Some(bar) = self.transfers.remove(id) {
                bar.finish();
            }
            return;
        }
        let screen = &self.screen;
        let start = || Transfer::start_in(screen, &clean(&format!("{action} {}", super::short(id))), total);
        self.transfers
            .entry(id.to_owned())
            .or_insert_with(start)
            .set(done);
    }
}

impl StepView {
    fn clear(self) {
        for bar in self.lines.iter().chain([&self.heading]) {
            bar.finish_and_clear();
        }
    }
}

impl Renderer for Live {
    fn event(&mut self, board: &Board, event: &Event, _: u64) {
        match event {
            Event::Warning { message, line, .. } => {
                let place = line
                    .map(|line| format!("{}: ", board.place(line)))
                    .unwrap_or_default();
                self.print(format!("warning: {place}{message}"));
            }
            Event::StepStarted { step } => self.start(board, *step),
            Event::StepCached { step } => self.finish(board, *step, "=", "cached"),
            Event::Output { step, .. } => self.output(board, *step),
            Event::StepFinished { step, duration_ms } => {
                let seconds = format!("{:.1}s", *duration_ms as f64 / 1000.0);
                self.finish(board, *step, "✓", &seconds);
            }
            Event::StepFailed {
                step,
                message,
                exit_code,
            } => self.finish(board, *step, "✗", &super::reason(message, *exit_code)),
            Event::Progress {
                id,
                action,
                done_bytes,
                total_bytes,
            } => {
                self.transfer(id, action, *done_bytes, *total_bytes);
            }
            Event::Planned { .. } | Event::LayerCommitted { .. } | Event::Finished { .. } => {}
        }
    }

    fn end(&mut self) {
        for (_, view) in self.steps.drain() {
            view.clear();
        }
        for (_, bar) in self.transfers.drain() {
            bar.finish();
        }
        // What is left after clearing is an empty screen.
        let _ = self.screen.clear();
    }
}

const STEP: &str = "{spinner} {wide_msg} {elapsed}";
const LINE: &str = "    {wide_msg:.dim}";

#[cfg(test)]
mod tests {
    use indicatif::ProgressStyle;

    use super::*;

    #[test]
    fn the_templates_are_valid() {
        for template in [STEP, LINE] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
