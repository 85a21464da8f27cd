//! A build as lines, for logs: `#3 [build 2/5] RUN make`, `#3 0.41 output`, `#3 CACHED`, `#3 DONE 1.2s`.

use std::collections::HashSet;

use builder::event::Event;
use bytesize::ByteSize;

use super::clean::clean;
use super::{Board, Renderer};

pub(crate) struct Plain {
    print: Box<dyn FnMut(String) + Send>,
    /// Transfers that were announced.
    transfers: HashSet<String>,
}

impl Plain {
    /// `print` takes whole lines.
    pub(crate) fn new(print: Box<dyn FnMut(String) + Send>) -> Self {
        Self {
            print,
            transfers: HashSet::new(),
        }
    }

    fn heading(&mut self, board: &Board, step: usize) {
        if let Some(state) = board.step(step) {
            (self.print)(format!("#{} {}", step + 1, state.heading()));
        }
    }

    fn transfer(&mut self, id: &str, action: &str, done: u64, total: Option<u64>) {
        let complete = total.is_some_and(|total| done >= total);
        // Lines for the beginning and the end are enough for a log.
        if self.transfers.insert(id.to_owned()) && !complete {
            let size = total
                .map(|total| format!(" ({})", ByteSize(total)))
                .unwrap_or_default();
            (self.print)(format!("{action} {}{size}", super::short(id)));
        } else if complete && self.transfers.insert(format!("{id} done")) {
            (self.print)(format!("{action} {} DONE {}", super::short(id), ByteSize(done)));
        }
    }
}

impl Renderer for Plain {
    fn event(&mut self, board: &Board, event: &Event, at_ms: u64) {
        match event {
            Event::Warning { message, line, code } => {
                let place = line
                    .map(|line| format!("{}: ", board.place(line)))
                    .unwrap_or_default();
                let code = code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default();
                (self.print)(format!("warning: {place}{message}{code}"));
            }
            Event::StepStarted { step } => self.heading(board, *step),
            Event::StepCached { step } => {
                self.heading(board, *step);
                (self.print)(format!("#{} CACHED", step + 1));
            }
            Event::Output { step, text, .. } => {
                let started = board.step(*step).map_or(at_ms, |state| state.started_ms);
                let seconds = at_ms.saturating_sub(started) as f64 / 1000.0;
                (self.print)(format!("#{} {seconds:.2} {}", step + 1, clean(text)));
            }
            Event::StepFinished { step, duration_ms } => {
                (self.print)(format!("#{} DONE {:.1}s", step + 1, *duration_ms as f64 / 1000.0));
            }
            Event::StepFailed {
                step,
                message,
                exit_code,
            } => {
                let reason = super::reason(message, *exit_code);
                (self.print)(format!("#{} ERROR {reason}", step + 1));
            }
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
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use builder::event::{StepInfo, Stream};

    use super::*;

    #[test]
    fn a_build_reads_as_a_log() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = lines.clone();
        let mut plain = Plain::new(Box::new(move |line| sink.lock().unwrap().push(line)));
        let mut board = Board::new("Dockerfile");
        let info = |step, stage: &str, text: &str| StepInfo {
            step,
            stage: stage.into(),
            text: text.into(),
            line: step + 2,
        };
        let steps = vec![
            info(0, "build", "COPY . ."),
            info(1, "build", "RUN make"),
            info(2, "1", "RUN false"),
        ];
        let output = |step, text: &str| Event::Output {
            step,
            stream: Stream::Stdout,
            text: text.into(),
        };
        for (at_ms, event) in [
            (0, Event::Planned { steps }),
            (5, Event::StepCached { step: 0 }),
            (10, Event::StepStarted { step: 1 }),
            (420, output(1, "\x1b[1mcc\x1b[0m")),
            (
                500,
                Event::StepFinished {
                    step: 1,
                    duration_ms: 490,
                },
            ),
            (510, Event::StepStarted { step: 2 }),
            (515, output(2, "oh")),
            (
                520,
                Event::StepFailed {
                    step: 2,
                    message: "the whole story\nin lines".into(),
                    exit_code: Some(1),
                },
            ),
        ] {
            board.apply(&event, at_ms);
            plain.event(&board, &event, at_ms);
        }
        assert_eq!(
            *lines.lock().unwrap(),
            [
                "#1 [build 1/2] COPY . .",
                "#1 CACHED",
                "#2 [build 2/2] RUN make",
                "#2 0.41 cc",
                "#2 DONE 0.5s",
                "#3 [stage-1 1/1] RUN false",
                "#3 0.01 oh",
                "#3 ERROR exit code 1",
            ]
        );
    }
}
