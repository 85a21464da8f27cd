//! Runs a plan.

mod error;
mod input;
mod node;

use tokio_util::sync::CancellationToken;

pub use error::{BuildError, StepRef};
pub use input::{BuildInput, BuildOutput, Dockerfile, Services};
pub use node::{Node, NodeConfig, NodeError};

/// Builds an image and puts it into the registry. Returns once its manifest is durable and tagged; a build that fails
/// or is cancelled leaves neither manifest nor tag.
pub async fn build(
    _input: BuildInput,
    _services: Services,
    _node: &Node,
    cancel: CancellationToken,
) -> Result<BuildOutput, BuildError> {
    cancel.cancelled().await;
    Err(BuildError::Cancelled)
}
