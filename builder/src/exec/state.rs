//! What a stage has become so far: its layers, known or on their way, its history, its key.

use std::sync::Arc;

use oci::{Descriptor, Digest, History, ImageConfig, Platform, RepoName};
use tokio::sync::watch;

use super::error::BuildError;
use super::key::Key;
use crate::snapshot::{ChainId, Snapshot};

/// Carries a layer's logical time in a manifest, so that another build on the image knows which times stand for it.
pub(super) const LAYER_TIME_ANNOTATION: &str = "io.layeryard.layer-time";

/// A layer that is in the registry.
#[derive(Clone, Debug)]
pub(super) struct LayerInfo {
    /// Where its blob is.
    pub(super) repository: RepoName,
    pub(super) descriptor: Descriptor,
    pub(super) diff_id: Digest,
    pub(super) time: Option<i64>,
}

/// A layer of a stage.
#[derive(Clone, Debug)]
pub(super) struct StageLayer {
    pub(super) info: Info,
    /// If a step of this build made it.
    pub(super) snapshot: Option<Arc<Snapshot>>,
}

#[derive(Clone, Debug)]
pub(super) enum Info {
    Known(Arc<LayerInfo>),
    /// Being tarred and uploaded.
    Pending(watch::Receiver<Option<Arc<LayerInfo>>>),
}

impl Info {
    /// Waits until the layer is in the registry. The error of a layer that failed is reported by its own task.
    pub(super) async fn get(&self) -> Result<Arc<LayerInfo>, BuildError> {
        match self {
            Self::Known(info) => Ok(Arc::clone(info)),
            Self::Pending(receiver) => {
                let mut receiver = receiver.clone();
                let info = receiver
                    .wait_for(Option::is_some)
                    .await
                    .map_err(|_| BuildError::TaskDied)?;
                info.clone().ok_or(BuildError::TaskDied)
            }
        }
    }

    pub(super) fn peek(&self) -> Option<Arc<LayerInfo>> {
        match self {
            Self::Known(info) => Some(Arc::clone(info)),
            Self::Pending(receiver) => receiver.borrow().clone(),
        }
    }
}

/// A stage after some of its steps, or all.
#[derive(Clone, Debug)]
pub(super) struct StageState {
    pub(super) key: Key,
    /// E0: the newest time of the base.
    pub(super) epoch: i64,
    pub(super) layers: Vec<StageLayer>,
    /// Of the steps of this build; the base's is in `image`.
    pub(super) history: Vec<History>,
    /// The base's configuration.
    pub(super) image: ImageConfig,
    pub(super) platform: Platform,
}

impl StageState {
    /// The chain's name, if every layer of it is in the registry.
    pub(super) fn chain(&self) -> Option<Option<ChainId>> {
        let infos: Option<Vec<_>> = self.layers.iter().map(|layer| layer.info.peek()).collect();
        Some(chains(&infos?).pop())
    }
}

/// The name of a list of layers, once all are in the registry.
pub(super) async fn chain_of(layers: &[Info]) -> Result<Option<ChainId>, BuildError> {
    let mut infos = Vec::with_capacity(layers.len());
    for layer in layers {
        infos.push(layer.get().await?);
    }
    Ok(chains(&infos).pop())
}

/// How records and memos call a chain; no layers are a chain as well.
pub(super) fn chain_name(chain: Option<&ChainId>) -> &str {
    chain.map_or("scratch", ChainId::as_str)
}

/// The chain ids of every prefix of a list of layers.
pub(super) fn chains(layers: &[Arc<LayerInfo>]) -> Vec<ChainId> {
    let mut chains: Vec<ChainId> = Vec::with_capacity(layers.len());
    for layer in layers {
        chains.push(ChainId::extend(chains.last(), &layer.diff_id, layer.time));
    }
    chains
}
