//! From an operation to its key and its layer's time, before anything runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::Build;
use super::copy::{self, Origin};
use super::error::{BuildError, StepRef};
use super::key::{Key, KeyBuilder};
use super::state::StageState;
use crate::blocking;
use crate::layer::{ChainTimes, layer_time};
use crate::plan::{Chmod, Copy, CopyFrom, Mkdir, Network, Operation, Run};
use crate::snapshot::Root;

const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";

/// A step that makes a layer, ready to be looked up or run.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) key: Key,
    /// T of the layer.
    pub(super) time: i64,
    pub(super) inputs: BTreeMap<String, String>,
}

impl Build<'_> {
    /// `parent` is the key below; `state` the stage's beginning, for what does not change in it.
    pub(super) async fn prepare(
        &self,
        operation: &Operation,
        parent: &Key,
        state: &StageState,
        at: &StepRef,
    ) -> Result<Option<Prepared>, BuildError> {
        let (builder, seed) = match operation {
            Operation::Config => return Ok(None),
            Operation::Run(run) => (self.run_key(run, parent, state), None),
            Operation::Mkdir(mkdir) => (mkdir_key(mkdir, parent), None),
            Operation::Copy(copy) => {
                let content = self.content_digest(copy, at).await?;
                (copy_key(copy, parent, &content), Some(content))
            }
        };
        let platform = &state.platform;
        let (key, mut inputs) = builder
            .inputs(
                "platform",
                [
                    &platform.os,
                    &platform.architecture,
                    platform.variant.as_ref().unwrap_or(&String::new()),
                ],
            )
            .finish();
        let time = layer_time(state.epoch, &seed.unwrap_or(key.0), None);
        let Some(limit) = self.plan.source_date_epoch.filter(|limit| *limit < time) else {
            return Ok(Some(Prepared { key, time, inputs }));
        };
        // It decides bytes only where it bites, and only there it is part of the key.
        let (key, more) = KeyBuilder::new("bounded")
            .input("step", key.0)
            .input(SOURCE_DATE_EPOCH, limit.to_string())
            .finish();
        inputs.extend(more);
        Ok(Some(Prepared {
            key,
            time: limit,
            inputs,
        }))
    }

    /// The environment of a RUN: the Dockerfile's, and the time to use instead of now.
    pub(super) fn run_env(&self, run: &Run, epoch: i64) -> Vec<(String, String)> {
        let mut env: Vec<(String, String)> = Vec::with_capacity(run.env.len() + 1);
        for (name, value) in &run.env {
            match env.iter_mut().find(|(other, _)| other == name) {
                Some(entry) => entry.1.clone_from(value),
                None => env.push((name.clone(), value.clone())),
            }
        }
        if !env.iter().any(|(name, _)| name == SOURCE_DATE_EPOCH) {
            let value = self.plan.source_date_epoch.unwrap_or(epoch);
            env.push((SOURCE_DATE_EPOCH.to_owned(), value.to_string()));
        }
        env
    }

    fn run_key(&self, run: &Run, parent: &Key, state: &StageState) -> KeyBuilder {
        let env = self.run_env(run, state.epoch);
        let builder = KeyBuilder::new("run")
            .input("parent", parent.0)
            .inputs("command", &run.args)
            .inputs("env", env.iter().map(|(name, value)| format!("{name}={value}")))
            .input("cwd", &run.cwd)
            .input("user", &run.user);
        let network = match run.network {
            Network::Default => "default",
            Network::None => "none",
            Network::Host => "host",
        };
        builder
            .input("network", network)
            .inputs("script", run.script.as_slice())
    }

    /// What a COPY's sources hold.
    async fn content_digest(&self, copy: &Copy, at: &StepRef) -> Result<[u8; 32], BuildError> {
        match &copy.from {
            _ if copy.sources.is_empty() => self.hash_content(None, copy, at).await,
            CopyFrom::Context => {
                let origin = self.context_origin(at).await?;
                self.hash_content(Some(origin), copy, at).await
            }
            CopyFrom::Stage(stage) => {
                let state = self.stage(*stage).await?;
                self.stage_content(&state, copy, at).await
            }
            CopyFrom::Image(reference) => {
                let state = self.image_state(reference, &self.input.platform)?;
                self.stage_content(&state, copy, at).await
            }
        }
    }

    /// Remembered by chain, so that a stage that has not changed is not unpacked to be hashed.
    async fn stage_content(
        &self,
        state: &StageState,
        copy: &Copy,
        at: &StepRef,
    ) -> Result<[u8; 32], BuildError> {
        let selector = copy::selector(copy);
        if let Some(known) = self.recall(state, &selector).await?
            && let Ok(digest) = hex::decode(&known)
            && let Ok(digest) = <[u8; 32]>::try_from(digest)
        {
            return Ok(digest_with_inline(digest, copy));
        }
        let origin = self.stage_origin(state, at).await?;
        let sources = Copy {
            inline: Vec::new(),
            ..copy.clone()
        };
        let digest = self.hash_content(Some(origin), &sources, at).await?;
        self.remember(state, selector, hex::encode(digest));
        Ok(digest_with_inline(digest, copy))
    }

    async fn hash_content(
        &self,
        origin: Option<Arc<Origin>>,
        copy: &Copy,
        at: &StepRef,
    ) -> Result<[u8; 32], BuildError> {
        let (copy, stop) = (copy.clone(), self.stop.clone());
        let digest = blocking::spawn("digest", move || copy::digest(origin.as_deref(), &copy, &stop));
        let digest = digest.await.map_err(|_| BuildError::TaskDied)?;
        self.check_stopped()?;
        digest.map_err(|error| copy_error(at, error))
    }

    /// What a COPY reads from; none if it has only inline files.
    pub(super) async fn origin(&self, copy: &Copy, at: &StepRef) -> Result<Option<Arc<Origin>>, BuildError> {
        if copy.sources.is_empty() {
            return Ok(None);
        }
        let origin = match &copy.from {
            CopyFrom::Context => self.context_origin(at).await?,
            CopyFrom::Stage(stage) => {
                let state = self.stage(*stage).await?;
                self.stage_origin(&state, at).await?
            }
            CopyFrom::Image(reference) => {
                let state = self.image_state(reference, &self.input.platform)?;
                self.stage_origin(&state, at).await?
            }
        };
        Ok(Some(origin))
    }

    async fn context_origin(&self, at: &StepRef) -> Result<Arc<Origin>, BuildError> {
        let context = self.services.context.root().await;
        let path: &Path = context.map_err(|error| BuildError::Step {
            at: at.boxed(),
            reason: error.to_string(),
        })?;
        let root = Root::open(path).map_err(|source| BuildError::StepIo {
            at: at.boxed(),
            action: "open the build context".to_owned(),
            source,
        })?;
        Ok(Arc::new(Origin {
            root,
            is_context: true,
            times: ChainTimes::default(),
        }))
    }

    async fn stage_origin(&self, state: &StageState, at: &StepRef) -> Result<Arc<Origin>, BuildError> {
        let top = self.materialise(state, at).await?;
        let tree = self
            .node
            .snapshots
            .tree(top.as_ref())
            .map_err(|source| BuildError::Snapshot {
                at: at.boxed(),
                source,
            })?;
        let times = ChainTimes::of(top.as_ref());
        Ok(Arc::new(Origin {
            root: Root::new(tree.into_fd()),
            is_context: false,
            times,
        }))
    }

    /// Whether preparing the operation has to wait for a stage that is still running.
    pub(super) fn waits(&self, operation: &Operation) -> bool {
        match operation {
            Operation::Copy(Copy {
                from: CopyFrom::Stage(stage),
                ..
            }) => !self.is_finished(*stage),
            _ => false,
        }
    }
}

/// The memo holds only what comes from the stage.
fn digest_with_inline(digest: [u8; 32], copy: &Copy) -> [u8; 32] {
    if copy.inline.is_empty() {
        return digest;
    }
    let files = copy
        .inline
        .iter()
        .map(|file| [file.name.as_bytes(), b"\0", &file.data].concat());
    KeyBuilder::new("inline")
        .input("sources", digest)
        .inputs("files", files)
        .finish()
        .0
        .0
}

fn mkdir_key(mkdir: &Mkdir, parent: &Key) -> KeyBuilder {
    KeyBuilder::new("mkdir")
        .input("parent", parent.0)
        .input("path", &mkdir.path)
        .input("user", &mkdir.user)
}

fn copy_key(copy: &Copy, parent: &Key, content: &[u8; 32]) -> KeyBuilder {
    let chmod = match &copy.chmod {
        None => String::new(),
        Some(Chmod::Octal(mode)) => format!("{mode:o}"),
        Some(Chmod::Symbolic(text)) => text.clone(),
    };
    let origin = match copy.from {
        CopyFrom::Context => "context",
        CopyFrom::Stage(_) | CopyFrom::Image(_) => "image",
    };
    KeyBuilder::new("copy")
        .input("parent", parent.0)
        .input("dest", &copy.dest)
        .input("dest_is_dir", [u8::from(copy.dest_is_dir)])
        .inputs("chown", copy.chown.as_slice())
        .input("chmod", chmod)
        .input("unpack", [u8::from(copy.unpack)])
        .input("origin", origin)
        .input("content", content)
}

pub(super) fn copy_error(at: &StepRef, error: copy::CopyError) -> BuildError {
    if error.is_users() {
        return BuildError::Step {
            at: at.boxed(),
            reason: error.to_string(),
        };
    }
    match error {
        copy::CopyError::Snapshot(source) => BuildError::Snapshot {
            at: at.boxed(),
            source,
        },
        copy::CopyError::Io { action, path, source } => BuildError::StepIo {
            at: at.boxed(),
            action: format!("{action} /{}", path.display()),
            source,
        },
        other => BuildError::Step {
            at: at.boxed(),
            reason: other.to_string(),
        },
    }
}
