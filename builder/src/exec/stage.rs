//! One stage: look its steps up as far as they are known, then run the rest.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use oci::{History, ImageConfig, Platform};

use super::Build;
use super::error::{BuildError, StepRef};
use super::key::{Key, KeyBuilder};
use super::prepare::Prepared;
use super::state::{Info, LayerInfo, StageLayer, StageState, chain_name, chain_of};
use crate::event::Event;
use crate::layer::{EPOCH_FLOOR, base_epoch, rfc3339};
use crate::plan::{Base, Mkdir, Operation, StageId, Step};
use crate::services::{CacheKey, StepRecord};

/// What a wave of look-ups found.
struct Wave {
    prepared: VecDeque<Option<Prepared>>,
    records: BTreeMap<CacheKey, StepRecord>,
}

impl Build<'_> {
    pub(super) async fn run_stage(&self, id: StageId) -> Result<Arc<StageState>, BuildError> {
        let stage = &self.plan.stages[id.0];
        let mut state = self.beginning(id).await?;
        let mut missed = self.input.no_cache;
        let mut wave = Wave {
            prepared: VecDeque::new(),
            records: BTreeMap::new(),
        };
        for (index, step) in stage.steps.iter().enumerate() {
            self.check_stopped()?;
            let at = self.step_ref(id, index);
            if wave.prepared.is_empty() {
                wave = self.wave(id, index, &state, missed).await?;
            }
            let Some(prepared) = wave.prepared.pop_front().flatten() else {
                self.config_step(&mut state, step, &at, missed);
                continue;
            };
            state.key = prepared.key;
            if !missed
                && self
                    .reuse(&mut state, step, &prepared, &wave.records, &at)
                    .await?
            {
                continue;
            }
            let began = Instant::now();
            self.services.events.emit(Event::StepStarted { step: at.step });
            let made_layer = Box::pin(self.execute(&mut state, step, &prepared, &at))
                .await
                .inspect_err(|error| {
                    let (message, exit_code) = (error.to_string(), error.exit_code());
                    self.services.events.emit(Event::StepFailed {
                        step: at.step,
                        message,
                        exit_code,
                    });
                })?;
            let duration_ms = began.elapsed().as_millis() as u64;
            self.services.events.emit(Event::StepFinished {
                step: at.step,
                duration_ms,
            });
            // A directory that was already there changes nothing above it.
            missed |= made_layer;
        }
        Ok(Arc::new(state))
    }

    /// What the stage is built on.
    async fn beginning(&self, id: StageId) -> Result<StageState, BuildError> {
        let stage = &self.plan.stages[id.0];
        match &stage.base {
            Base::Stage(base) => {
                let mut state = StageState::clone(&*self.stage(*base).await?);
                state.platform = stage.platform.clone();
                Ok(state)
            }
            Base::Image(reference) => self.image_state(reference, &stage.platform),
            Base::Scratch => {
                let (key, _) = KeyBuilder::new("scratch").finish();
                let image = ImageConfig {
                    architecture: stage.platform.architecture.clone(),
                    os: stage.platform.os.clone(),
                    variant: stage.platform.variant.clone(),
                    ..ImageConfig::default()
                };
                Ok(StageState {
                    key,
                    epoch: EPOCH_FLOOR,
                    layers: Vec::new(),
                    history: Vec::new(),
                    image,
                    platform: stage.platform.clone(),
                })
            }
        }
    }

    /// An image as a stage without steps.
    pub(super) fn image_state(&self, reference: &str, platform: &Platform) -> Result<StageState, BuildError> {
        let image = self
            .images
            .get(&(reference.to_owned(), platform.clone()))
            .ok_or(BuildError::TaskDied)?;
        let epoch = base_epoch(image.config.created.as_deref(), &image.config.history);
        let (key, _) = KeyBuilder::new("base")
            .input("manifest", image.digest.to_string())
            .input("epoch", epoch.to_le_bytes())
            .finish();
        let known = |info: &Arc<LayerInfo>| StageLayer {
            info: Info::Known(Arc::clone(info)),
            snapshot: None,
        };
        Ok(StageState {
            key,
            epoch,
            layers: image.layers.iter().map(known).collect(),
            history: Vec::new(),
            image: image.config.clone(),
            platform: platform.clone(),
        })
    }

    /// Prepares as many steps as can be without waiting for another stage, and looks them up in one request.
    async fn wave(
        &self,
        id: StageId,
        first: usize,
        state: &StageState,
        missed: bool,
    ) -> Result<Wave, BuildError> {
        let mut prepared = VecDeque::new();
        let mut key: Key = state.key;
        for (index, step) in self.plan.stages[id.0].steps.iter().enumerate().skip(first) {
            if index > first && (missed || self.waits(&step.operation)) {
                break;
            }
            let at = self.step_ref(id, index);
            // Its error belongs to it, not to the step at which the wave began.
            let next = match self.prepare(&step.operation, &key, state, &at).await {
                Err(_) if index > first => break,
                result => result?,
            };
            if let Some(next) = &next {
                key = next.key;
            }
            prepared.push_back(next);
        }
        let keys: Vec<CacheKey> = prepared
            .iter()
            .flatten()
            .map(|step| step.key.cache_key())
            .collect();
        let records = if missed || keys.is_empty() {
            BTreeMap::new()
        } else {
            let found = self.services.cache.get(&keys).await;
            found.map_err(|source| BuildError::Service {
                action: "look up the step cache",
                source,
            })?
        };
        Ok(Wave { prepared, records })
    }

    /// A step that changes the configuration alone: nothing to run, so nothing new as long as all before it was found.
    fn config_step(&self, state: &mut StageState, step: &Step, at: &StepRef, missed: bool) {
        self.push_history(state, step, None);
        let events = &self.services.events;
        if missed {
            events.emit(Event::StepStarted { step: at.step });
            events.emit(Event::StepFinished {
                step: at.step,
                duration_ms: 0,
            });
        } else {
            events.emit(Event::StepCached { step: at.step });
        }
    }

    /// Takes a step from the cache if it is there.
    async fn reuse(
        &self,
        state: &mut StageState,
        step: &Step,
        prepared: &Prepared,
        records: &BTreeMap<CacheKey, StepRecord>,
        at: &StepRef,
    ) -> Result<bool, BuildError> {
        if let Some(record) = self.found(state, prepared, records).await? {
            let info = LayerInfo {
                repository: self.input.repository.clone(),
                descriptor: record.layer.clone(),
                diff_id: record.diff_id,
                time: Some(record.layer_time),
            };
            state.layers.push(StageLayer {
                info: Info::Known(Arc::new(info)),
                snapshot: None,
            });
            self.push_history(state, step, Some(record.layer_time));
        } else if let Operation::Mkdir(mkdir) = &step.operation
            && self.recall(state, &presence(mkdir)).await?.is_some()
        {
            self.push_history(state, step, None);
        } else {
            return Ok(false);
        }
        self.services.events.emit(Event::StepCached { step: at.step });
        Ok(true)
    }

    /// The step's record, if its layer belongs on the layers that this build has.
    async fn found<'r>(
        &self,
        state: &StageState,
        prepared: &Prepared,
        records: &'r BTreeMap<CacheKey, StepRecord>,
    ) -> Result<Option<&'r StepRecord>, BuildError> {
        let Some(record) = records.get(&prepared.key.cache_key()) else {
            return Ok(None);
        };
        let layers: Vec<_> = state.layers.iter().map(|layer| layer.info.clone()).collect();
        let chain = chain_of(&layers).await?;
        Ok((record.below == chain_name(chain.as_ref())).then_some(record))
    }

    /// `layer_time` is that of the layer the step made, if it made one.
    pub(super) fn push_history(&self, state: &mut StageState, step: &Step, layer_time: Option<i64>) {
        let epoch = self.plan.source_date_epoch.unwrap_or(state.epoch);
        state.history.push(History {
            created: Some(rfc3339(layer_time.unwrap_or(epoch))),
            created_by: Some(step.created_by.clone()),
            empty_layer: layer_time.is_none(),
            ..History::default()
        });
    }

    /// A memo about a chain, if the chain's name is known already.
    pub(super) async fn recall(
        &self,
        state: &StageState,
        selector: &str,
    ) -> Result<Option<String>, BuildError> {
        if self.input.no_cache {
            return Ok(None);
        }
        let Some(chain) = state.chain() else {
            return Ok(None);
        };
        let key = memo_key(chain_name(chain.as_ref()), selector);
        let found = self.services.cache.memo_get(std::slice::from_ref(&key)).await;
        let mut found = found.map_err(|source| BuildError::Service {
            action: "look up a memo",
            source,
        })?;
        Ok(found.remove(&key))
    }
}

pub(super) fn memo_key(chain: &str, selector: &str) -> String {
    format!("{chain}/{selector}")
}

/// The selector of "this directory exists".
pub(super) fn presence(mkdir: &Mkdir) -> String {
    format!("dir:{}", mkdir.path)
}
