//! What is known of a build so far: a fold over its events.

use std::collections::{BTreeMap, VecDeque};

use builder::event::{Event, StepInfo};

use super::clean::clean;

/// How many of a running step's last lines a view may show.
const TAIL_LINES: usize = 5;

#[derive(Debug)]
pub(crate) struct Board {
    file_name: String,
    steps: BTreeMap<usize, StepState>,
}

#[derive(Debug)]
pub(crate) struct StepState {
    pub(crate) info: StepInfo,
    /// `[build 2/5]`.
    pub(crate) label: String,
    pub(crate) started_ms: u64,
    tail: VecDeque<String>,
}

impl Board {
    pub(crate) fn new(file_name: &str) -> Self {
        Self {
            file_name: file_name.to_owned(),
            steps: BTreeMap::new(),
        }
    }

    pub(crate) fn step(&self, step: usize) -> Option<&StepState> {
        self.steps.get(&step)
    }

    /// `Dockerfile:7`.
    pub(crate) fn place(&self, line: usize) -> String {
        format!("{}:{line}", self.file_name)
    }

    pub(crate) fn apply(&mut self, event: &Event, at_ms: u64) {
        match event {
            Event::Planned { steps } => self.plan(steps),
            Event::StepStarted { step } => {
                if let Some(state) = self.steps.get_mut(step) {
                    state.started_ms = at_ms;
                }
            }
            Event::Output { step, text, .. } => {
                if let Some(state) = self.steps.get_mut(step) {
                    if state.tail.len() == TAIL_LINES {
                        state.tail.pop_front();
                    }
                    state.tail.push_back(clean(text));
                }
            }
            _ => {}
        }
    }

    fn plan(&mut self, steps: &[StepInfo]) {
        let mut totals: BTreeMap<&str, usize> = BTreeMap::new();
        for step in steps {
            *totals.entry(&step.stage).or_default() += 1;
        }
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for info in steps {
            let number = seen.entry(&info.stage).or_default();
            *number += 1;
            let total = totals[info.stage.as_str()];
            let label = match stage_name(&info.stage, totals.len()) {
                Some(stage) => format!("[{stage} {number}/{total}]"),
                None => format!("[{number}/{total}]"),
            };
            let state = StepState {
                info: info.clone(),
                label,
                started_ms: 0,
                tail: VecDeque::with_capacity(TAIL_LINES),
            };
            self.steps.insert(info.step, state);
        }
    }
}

/// How a stage is called; a build's only stage needs no name if the Dockerfile gives it none.
fn stage_name(stage: &str, stages: usize) -> Option<String> {
    match stage.parse::<usize>() {
        Ok(_) if stages == 1 => None,
        Ok(number) => Some(format!("stage-{number}")),
        Err(_) => Some(stage.to_owned()),
    }
}

impl StepState {
    /// `[build 2/5] RUN make`, on one line.
    pub(crate) fn heading(&self) -> String {
        let text = self
            .info
            .text
            .lines()
            .map(str::trim)
            .collect::<Vec<_>>()
            .join(" ");
        format!("{} {}", self.label, clean(&text))
    }

    pub(crate) fn tail(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.tail.iter().map(String::as_str)
    }
}
