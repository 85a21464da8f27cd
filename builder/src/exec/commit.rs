//! A finished step's way into the registry, while the next one already runs: layer, then record.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::Build;
use super::error::{BuildError, StepRef};
use super::prepare::Prepared;
use super::stage::memo_key;
use super::state::{Info, LayerInfo, StageState, chain_name, chain_of};
use crate::event::Event;
use crate::layer::{Compressors, Diff, Layer, LayerTimes, upload};
use crate::services::StepRecord;
use crate::snapshot::{ChainId, Snapshot, Store};

/// A layer to be made.
pub(super) struct Commit {
    pub(super) at: StepRef,
    pub(super) prepared: Prepared,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) parent: Option<Arc<Snapshot>>,
    pub(super) times: LayerTimes,
    /// The layers under it.
    pub(super) below: Vec<Info>,
}

/// A commit on its way. Dropped, it is abandoned: the upload is aborted and no record is written.
pub(super) struct RunningCommit {
    pub(super) step: usize,
    pub(super) task: AbortOnDropHandle<Result<(), BuildError>>,
}

/// What a commit works with; outlives the borrow of the build.
struct Worker {
    services: super::input::Services,
    store: Arc<Store>,
    compressors: Arc<Compressors>,
    repository: oci::RepoName,
}

impl Build<'_> {
    /// Starts making the layer; `done` tells what it became.
    pub(super) fn commit(&self, commit: Commit, done: watch::Sender<Option<Arc<LayerInfo>>>) {
        let worker = self.commit_worker();
        let step = commit.at.step;
        let stop = self.stop.clone();
        let events = Arc::clone(&self.services.events);
        let task = tokio::spawn(async move {
            worker.run(commit, done).await.inspect_err(|error| {
                // A layer that waits for the one below it fails with it; only the cause is told.
                if !matches!(error, BuildError::TaskDied) {
                    events.emit(Event::StepFailed {
                        step,
                        message: error.to_string(),
                        exit_code: None,
                    });
                }
                stop.cancel();
            })
        });
        self.commits().push(RunningCommit {
            step,
            task: AbortOnDropHandle::new(task),
        });
    }

    /// Remembers something about a stage's chain as soon as the chain has a name. Only a help: an error is no matter.
    pub(super) fn remember(&self, state: &StageState, selector: String, value: String) {
        let worker = self.commit_worker();
        let layers: Vec<Info> = state.layers.iter().map(|layer| layer.info.clone()).collect();
        let task = tokio::spawn(async move {
            let chain = chain_of(&layers).await?;
            let key = memo_key(chain_name(chain.as_ref()), &selector);
            if let Err(error) = worker.services.cache.memo_put(&key, &value).await {
                tracing::debug!(%error, selector, "could not store a memo");
            }
            Ok(())
        });
        self.commits().push(RunningCommit {
            step: usize::MAX,
            task: AbortOnDropHandle::new(task),
        });
    }

    fn commit_worker(&self) -> Worker {
        Worker {
            services: self.services.clone(),
            store: Arc::clone(&self.node.snapshots),
            compressors: Arc::clone(&self.node.compressors),
            repository: self.input.repository.clone(),
        }
    }
}

impl Worker {
    async fn run(
        self,
        commit: Commit,
        done: watch::Sender<Option<Arc<LayerInfo>>>,
    ) -> Result<(), BuildError> {
        let Commit {
            at,
            prepared,
            snapshot,
            parent,
            times,
            below,
        } = commit;
        let (store, upper) = (Arc::clone(&self.store), snapshot.fs());
        let produced = upload(&*self.services.sink, &self.compressors, move |writer| {
            let lower = store.tree(parent.as_ref())?;
            Diff { upper, lower, times }.write(writer)
        });
        let (Layer { descriptor, diff_id }, warnings) =
            produced.await.map_err(|source| BuildError::Layer {
                at: at.boxed(),
                source,
            })?;
        for message in warnings {
            self.services.events.emit(Event::Warning {
                message,
                line: Some(at.line),
                code: None,
            });
        }
        let below = chain_of(&below).await?;
        let record = StepRecord {
            layer: descriptor.clone(),
            diff_id,
            below: chain_name(below.as_ref()).to_owned(),
            layer_time: prepared.time,
            inputs: prepared.inputs,
        };
        // The blob is durable: from now on other builds may count on it.
        let stored = self.services.cache.put(&prepared.key.cache_key(), &record).await;
        stored.map_err(|source| BuildError::Service {
            action: "record the step in the cache",
            source,
        })?;
        self.services.events.emit(Event::LayerCommitted {
            step: at.step,
            digest: descriptor.digest.to_string(),
            size_bytes: descriptor.size,
        });
        let repository = self.repository.clone();
        let info = LayerInfo {
            repository,
            descriptor,
            diff_id,
            time: Some(prepared.time),
        };
        // Nobody may be waiting for it any more.
        done.send_replace(Some(Arc::new(info)));
        let chain = ChainId::extend(below.as_ref(), &diff_id, Some(prepared.time));
        self.store
            .set_chain(&snapshot, diff_id, chain)
            .map_err(|source| BuildError::Snapshot {
                at: at.boxed(),
                source,
            })
    }
}
