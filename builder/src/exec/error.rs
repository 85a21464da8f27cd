//! Why a build failed, in words for the one who wrote the Dockerfile.

use std::fmt;

use crate::layer::LayerError;
use crate::services::ServiceError;
use crate::snapshot::SnapshotError;

/// Where in the build something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepRef {
    /// The step's number in this build, from 0.
    pub step: usize,
    /// File and first line of the instruction, from 1.
    pub file: String,
    pub line: usize,
    /// The instruction as the user wrote it.
    pub text: String,
}

impl StepRef {
    /// For an error, which is to be small.
    pub(super) fn boxed(&self) -> Box<Self> {
        Box::new(self.clone())
    }
}

impl fmt::Display for StepRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.text)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile can't be read or planned; the message names file and line.
    #[error("{message}")]
    Dockerfile { message: String, line: Option<usize> },
    #[error("{file}:{line}: the image {reference}: {source}{hint}")]
    Image {
        file: String,
        line: usize,
        reference: String,
        /// A line of help, or nothing.
        hint: String,
        source: ServiceError,
    },
    #[error("{file}:{line}: the image {reference} is malformed: {reason}")]
    MalformedImage {
        file: String,
        line: usize,
        reference: String,
        reason: String,
    },
    /// A RUN whose command ended badly.
    #[error("{at}: {command} ended with {exit}{}", tail(last_output))]
    Run {
        at: Box<StepRef>,
        command: String,
        exit: String,
        exit_code: i32,
        last_output: Vec<String>,
    },
    /// A step that could not be done for a reason that lies in its inputs.
    #[error("{at}: {reason}")]
    Step { at: Box<StepRef>, reason: String },
    /// A step that could not be done for a reason of ours or of the machine's.
    #[error("{at}: {action}: {source}")]
    StepIo {
        at: Box<StepRef>,
        action: String,
        source: std::io::Error,
    },
    #[error("{at}: {source}")]
    Snapshot { at: Box<StepRef>, source: SnapshotError },
    #[error("{at}: the layer: {source}")]
    Layer { at: Box<StepRef>, source: LayerError },
    #[error("{at}: the container: {source}")]
    Runtime {
        at: Box<StepRef>,
        source: runtime::RuntimeError,
    },
    #[error("could not {action}: {source}")]
    Service {
        action: &'static str,
        source: ServiceError,
    },
    #[error("could not serialise the image's {what}: {source}")]
    Serialise {
        what: &'static str,
        source: serde_json::Error,
    },
    #[error("this worker can't run build steps: {missing}")]
    Unavailable { missing: String },
    #[error("a task of the build ended unexpectedly")]
    TaskDied,
    #[error("the build was cancelled")]
    Cancelled,
}

impl BuildError {
    /// The stable name of the kind of failure, as in the build API.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Dockerfile { .. } => "dockerfile",
            Self::Image { .. } | Self::MalformedImage { .. } => "image",
            Self::Run { .. }
            | Self::Step { .. }
            | Self::Layer {
                source: LayerError::Unrepresentable { .. },
                ..
            } => "step",
            Self::Unavailable { .. } => "unavailable",
            Self::Cancelled => "cancelled",
            Self::StepIo { .. }
            | Self::Snapshot { .. }
            | Self::Layer { .. }
            | Self::Runtime { .. }
            | Self::Service { .. }
            | Self::Serialise { .. }
            | Self::TaskDied => "internal",
        }
    }

    /// The exit code of the RUN that failed.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Run { exit_code, .. } => Some(*exit_code),
            _ => None,
        }
    }
}

fn tail(lines: &[String]) -> String {
    let mut text = String::new();
    if !lines.is_empty() {
        text.push_str("; its last output:");
    }
    for line in lines {
        text.push_str("\n  ");
        text.push_str(line);
    }
    text
}
