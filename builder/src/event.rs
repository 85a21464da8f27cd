//! What a build tells while it runs: typed, ordered, and independent of how anybody shows it.

use serde::{Deserialize, Serialize};

/// One event. The registry numbers events and keeps them readable; the CLI renders them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The plan is known: every step that will run or be found in the cache, in display order.
    Planned {
        steps: Vec<StepInfo>,
    },
    /// A remark about the Dockerfile.
    Warning {
        message: String,
        line: Option<usize>,
        code: Option<String>,
    },
    StepStarted {
        step: usize,
    },
    /// The step was found in the cache and did not run.
    StepCached {
        step: usize,
    },
    /// A line (without its line feed) that the step's command wrote.
    Output {
        step: usize,
        stream: Stream,
        text: String,
    },
    /// The step's command has ended well; its layer may still be on its way.
    StepFinished {
        step: usize,
        duration_ms: u64,
    },
    /// The step's layer is in the registry.
    LayerCommitted {
        step: usize,
        digest: String,
        size_bytes: u64,
    },
    StepFailed {
        step: usize,
        message: String,
        exit_code: Option<i32>,
    },
    /// A transfer's state: unpacking a base layer, uploading a layer, reading the context.
    Progress {
        id: String,
        action: String,
        done_bytes: u64,
        total_bytes: Option<u64>,
    },
    /// The image's manifest is in the registry under every name.
    Finished {
        digest: String,
        names: Vec<String>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepInfo {
    /// The step's number in this build, from 0.
    pub step: usize,
    /// The stage's name or number.
    pub stage: String,
    /// The instruction as the user wrote it, continuation lines joined.
    pub text: String,
    /// The first line of the instruction in its file, from 1.
    pub line: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Takes events; never blocks and never fails: a slow reader does not hold up a build.
pub trait EventSink: Send + Sync {
    fn emit(&self, event: Event);
}
