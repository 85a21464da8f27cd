//! A stage's layers to a chain of snapshots: what this node has is used, the rest is unpacked, side by side.

use std::sync::Arc;

use futures::future::try_join_all;
use tokio_util::io::SyncIoBridge;

use super::Build;
use super::error::{BuildError, StepRef};
use super::state::{LayerInfo, StageState, chains};
use crate::event::Event;
use crate::snapshot::unpack::{LayerSource, Unpacked, unpack_layer};
use crate::snapshot::{Snapshot, SnapshotError};

impl Build<'_> {
    /// The top of the stage's chain; none for a stage without layers.
    pub(super) async fn materialise(
        &self,
        state: &StageState,
        at: &StepRef,
    ) -> Result<Option<Arc<Snapshot>>, BuildError> {
        match state.layers.last() {
            None => return Ok(None),
            Some(top) if top.snapshot.is_some() => return Ok(top.snapshot.clone()),
            Some(_) => {}
        }
        let mut infos = Vec::with_capacity(state.layers.len());
        for layer in &state.layers {
            infos.push(layer.info.get().await?);
        }
        let chains = chains(&infos);
        let lock = self.node.unpack_lock(&chains[0]);
        let _guard = lock.lock().await;
        let store = &self.node.snapshots;
        let local = (0..infos.len()).rev().find_map(|index| {
            let snapshot = state.layers[index]
                .snapshot
                .clone()
                .or_else(|| store.find(&chains[index]));
            snapshot.map(|snapshot| (index + 1, snapshot))
        });
        let (have, mut top) = local.map_or((0, None), |(have, snapshot)| (have, Some(snapshot)));
        let missing = infos[have..].iter().map(|info| self.unpack(info, at));
        let unpacked = try_join_all(missing).await?;
        for (index, layer) in unpacked.into_iter().enumerate() {
            let store = Arc::clone(store);
            let (info, chain) = (Arc::clone(&infos[have + index]), chains[have + index].clone());
            let committed = tokio::task::spawn_blocking(move || {
                let snapshot = layer.commit(&store, top)?;
                store.set_chain(&snapshot, info.diff_id, chain)?;
                Ok::<_, SnapshotError>(snapshot)
            });
            let snapshot = committed.await.map_err(|_| BuildError::TaskDied)?;
            top = Some(snapshot.map_err(|source| BuildError::Snapshot {
                at: at.boxed(),
                source,
            })?);
        }
        Ok(top)
    }

    async fn unpack(&self, info: &Arc<LayerInfo>, at: &StepRef) -> Result<Unpacked, BuildError> {
        let slots = Arc::clone(&self.node.unpack_slots);
        let permit = slots.acquire_owned().await.map_err(|_| BuildError::TaskDied)?;
        self.check_stopped()?;
        // Taken here and not in the thread: layers of a chain get their instants in its order.
        let instant = self.node.snapshots.clock().instant();
        let reader = self
            .services
            .images
            .open(&info.repository, &info.descriptor, 0)
            .await
            .map_err(|source| BuildError::Service {
                action: "read a layer",
                source,
            })?;
        let id = info.descriptor.digest.to_string();
        let size = info.descriptor.size;
        self.progress(&id, 0, size);
        let (store, info) = (Arc::clone(&self.node.snapshots), Arc::clone(info));
        let unpacked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let source = LayerSource {
                bytes: SyncIoBridge::new(reader),
                digest: info.descriptor.digest,
                diff_id: info.diff_id,
                layer_time: info.time,
                instant,
            };
            unpack_layer(&store, source)
        });
        let unpacked = unpacked.await.map_err(|_| BuildError::TaskDied)?;
        self.progress(&id, size, size);
        unpacked.map_err(|source| BuildError::Snapshot {
            at: at.boxed(),
            source,
        })
    }

    fn progress(&self, id: &str, done_bytes: u64, size: u64) {
        self.services.events.emit(Event::Progress {
            id: id.to_owned(),
            action: "unpack".to_owned(),
            done_bytes,
            total_bytes: Some(size),
        });
    }
}
