//! Runs a plan.
//!
//! | File | Does |
//! |---|---|
//! | `planning` | asks the planner until the plan stands, resolving bases |
//! | `stage` | one stage: look-ups in waves, then what missed, in order |
//! | `prepare`, `key` | a step's inputs to its cache key and its layer's time |
//! | `step`, `run`, `places`, `copy` | the step itself, on a writable tree |
//! | `commit` | tar, upload and record of a finished step while the next runs |
//! | `tree` | cached layers back to directories, only if a step needs them |
//! | `image` | configuration, manifest, tags |
//!
//! Stages are futures that wait for one another; each runs as soon as what it needs is there. What blocks (copying,
//! hashing, unpacking, waiting for a command) runs on threads of its own.

mod commit;
mod copy;
mod error;
mod image;
mod input;
mod key;
mod node;
mod output;
mod places;
mod planning;
mod prepare;
mod run;
mod stage;
mod state;
mod step;
mod tree;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::{BoxFuture, FutureExt, join_all};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

pub use error::{BuildError, StepRef};
pub use input::{BuildInput, BuildOutput, Dockerfile, Services};
pub use node::{Node, NodeConfig, NodeError};

use crate::event::{Event, StepInfo};
use crate::plan::{Operation, Plan, StageId};
use commit::RunningCommit;
use planning::BaseImages;
use state::StageState;

/// Builds an image and puts it into the registry. Returns once its manifest is durable and tagged; a build that fails
/// or is cancelled leaves neither manifest nor tag.
pub async fn build(
    input: BuildInput,
    services: Services,
    node: &Node,
    cancel: CancellationToken,
) -> Result<BuildOutput, BuildError> {
    let building = Box::pin(build_all(input, services, node, cancel.child_token()));
    tokio::select! {
        biased;
        // Dropping the build kills its step, aborts its uploads and trashes what it wrote.
        () = cancel.cancelled() => Err(BuildError::Cancelled),
        result = building => result,
    }
}

async fn build_all(
    input: BuildInput,
    services: Services,
    node: &Node,
    stop: CancellationToken,
) -> Result<BuildOutput, BuildError> {
    let (plan, images) = planning::plan(&input, &services).await?;
    let makes_layers = |operation: &Operation| !matches!(operation, Operation::Config);
    if plan
        .stages
        .iter()
        .flat_map(|stage| &stage.steps)
        .any(|step| makes_layers(&step.operation))
        && let Some(missing) = node.missing()
    {
        return Err(BuildError::Unavailable {
            missing: missing.to_owned(),
        });
    }
    let stages = plan.stages.iter().map(|_| OnceCell::new()).collect();
    let build = Build {
        input,
        services,
        node,
        plan,
        images,
        stages,
        commits: Mutex::default(),
        stop,
    };
    build.announce();
    build.run_all().await
}

/// A build that runs.
struct Build<'a> {
    input: BuildInput,
    services: Services,
    node: &'a Node,
    plan: Plan,
    images: BaseImages,
    /// Finished stages.
    stages: Vec<OnceCell<Arc<StageState>>>,
    commits: Mutex<Vec<RunningCommit>>,
    /// Cancelled by the first error: nothing new begins, what runs is killed.
    stop: CancellationToken,
}

impl Build<'_> {
    async fn run_all(&self) -> Result<BuildOutput, BuildError> {
        let stages = (0..self.plan.stages.len()).map(|index| self.stage(StageId(index)));
        let results = join_all(stages.map(|stage| {
            stage.inspect(|result| {
                if result.is_err() {
                    self.stop.cancel();
                }
            })
        }))
        .await;
        // Steps that have finished stay as cache, also those of a build that failed.
        let committed = self.finish_commits().await;
        let mut states = Vec::new();
        let mut errors: Vec<BuildError> = Vec::new();
        for result in results {
            match result {
                Ok(state) => states.push(state),
                Err(error) => errors.push(error),
            }
        }
        errors.extend(committed.err());
        if let Some(error) = first_cause(errors) {
            return Err(error);
        }
        let (Some(stage), Some(state)) = (self.plan.stages.last(), states.last()) else {
            return Err(BuildError::Dockerfile {
                message: "there is no stage to build".to_owned(),
                line: None,
            });
        };
        let output = self.publish(stage, state).await?;
        let (digest, names) = (output.digest.to_string(), output.names.clone());
        self.services.events.emit(Event::Finished { digest, names });
        Ok(output)
    }

    /// A stage's result; the first who asks runs it.
    fn stage(&self, id: StageId) -> BoxFuture<'_, Result<Arc<StageState>, BuildError>> {
        async move {
            let state = self.stages[id.0].get_or_try_init(|| async {
                self.check_stopped()?;
                self.run_stage(id).await.inspect_err(|_| self.stop.cancel())
            });
            state.await.cloned()
        }
        .boxed()
    }

    fn is_finished(&self, id: StageId) -> bool {
        self.stages[id.0].initialized()
    }

    /// Waits for the layers on their way; the error of the lowest step.
    async fn finish_commits(&self) -> Result<(), BuildError> {
        let mut errors: Vec<(usize, BuildError)> = Vec::new();
        loop {
            let running = std::mem::take(&mut *self.commits());
            if running.is_empty() {
                break;
            }
            for commit in running {
                let result = commit.task.await.unwrap_or(Err(BuildError::TaskDied));
                if let Err(error) = result {
                    errors.push((commit.step, error));
                }
            }
        }
        errors.sort_by_key(|(step, _)| *step);
        first_cause(errors.into_iter().map(|(_, error)| error).collect()).map_or(Ok(()), Err)
    }

    fn commits(&self) -> MutexGuard<'_, Vec<RunningCommit>> {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_stopped(&self) -> Result<(), BuildError> {
        if self.stop.is_cancelled() {
            Err(BuildError::Cancelled)
        } else {
            Ok(())
        }
    }

    fn announce(&self) {
        let mut steps = Vec::new();
        for (stage, planned) in self.plan.stages.iter().enumerate() {
            for (index, step) in planned.steps.iter().enumerate() {
                steps.push(StepInfo {
                    step: self.step_ref(StageId(stage), index).step,
                    stage: planned.label.clone(),
                    text: step.text.clone(),
                    line: step.span.line,
                });
            }
        }
        self.services.events.emit(Event::Planned { steps });
        for warning in &self.plan.warnings {
            self.services.events.emit(Event::Warning {
                message: warning.message.clone(),
                line: Some(warning.span.line),
                code: warning.code.map(str::to_owned),
            });
        }
    }

    fn step_ref(&self, stage: StageId, index: usize) -> StepRef {
        let before: usize = self.plan.stages[..stage.0]
            .iter()
            .map(|stage| stage.steps.len())
            .sum();
        let step = &self.plan.stages[stage.0].steps[index];
        StepRef {
            step: before + index,
            file: self.input.dockerfile.name.clone(),
            line: step.span.line,
            text: step.text.clone(),
        }
    }
}

/// The first error that is not just the echo of another.
fn first_cause(errors: Vec<BuildError>) -> Option<BuildError> {
    let mut errors = errors;
    let at = errors
        .iter()
        .position(|error| !matches!(error, BuildError::Cancelled | BuildError::TaskDied));
    let at = at.or_else(|| {
        errors
            .iter()
            .position(|error| matches!(error, BuildError::TaskDied))
    });
    let at = at.or(if errors.is_empty() { None } else { Some(0) })?;
    Some(errors.swap_remove(at))
}
