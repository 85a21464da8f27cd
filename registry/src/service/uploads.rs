//! Upload sessions: from the first byte to a durable blob.
//!
//! Everything that changes a session runs in a task of its own, because the request's future is dropped when its
//! client hangs up; then only the body ends early, and the task records how far it came.

use std::sync::Arc;
use std::time::Duration;

use oci::{Algorithm, Digest, RepoName};

use super::batches::{BodyStream, drain, meanwhile};
use super::closing::{check_length, recorded};
use super::ingest::{Source, settled_now};
use super::{Registry, RegistryError, Result};
use crate::metadata::{Checkpoint, ClaimOutcome, ClaimUpload, Closing, NewUpload, UploadState};
use crate::report::chain;
use crate::storage::UploadId;
use crate::traces::{self, Traced as _};

/// How often, and how many times, a session is tried again that another request is just leaving.
const BUSY_PAUSE: Duration = Duration::from_millis(50);
const BUSY_TRIES: u32 = 20;

/// What a request says about the bytes it carries, as far as it says anything.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Chunk {
    /// Where they begin.
    pub(crate) offset: Option<u64>,
    pub(crate) length: Option<u64>,
}

/// One session as a request names it.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) id: UploadId,
    pub(crate) repository: RepoName,
}

impl Registry {
    /// Opens a session whose blob comes with later requests.
    pub(crate) async fn start_upload(
        &self,
        repository: &RepoName,
        actor: &str,
        algorithm: Algorithm,
    ) -> Result<UploadId> {
        self.require_writable(repository)?;
        self.require_room(repository).await?;
        self.store.require_space().await?;
        let id = UploadId::random();
        let upload = NewUpload {
            id,
            repository: repository.clone(),
            principal: actor.to_owned(),
            algorithm,
            closing: None,
        };
        let creating = self.metadata.create_upload(upload);
        creating.within(self.query("create_upload")).await?;
        Ok(id)
    }

    /// Below this chunks are expensive.
    pub(crate) fn chunk_bytes_min(&self) -> Option<u64> {
        self.store.chunk_bytes_min()
    }

    /// How many bytes a session has.
    pub(crate) async fn upload_offset(&self, session: &Session) -> Result<u64> {
        let finding = self.metadata.find_upload(session.id, &session.repository);
        let found = finding.within(self.query("find_upload")).await?;
        found
            .map(|state| state.offset)
            .ok_or(RegistryError::UploadUnknown(session.id))
    }

    pub(crate) async fn cancel_upload(self: &Arc<Self>, session: Session) -> Result<()> {
        let registry = Arc::clone(self);
        traces::spawn(async move {
            let cancelling = registry.metadata.cancel_upload(session.id, &session.repository);
            if !cancelling.within(registry.query("cancel_upload")).await? {
                return Err(RegistryError::UploadUnknown(session.id));
            }
            Ok(registry.store.discard_upload(session.id).await?)
        })
        .await?
    }

    /// Appends a body to a session; returns where the session stands then.
    pub(crate) async fn append(
        self: &Arc<Self>,
        session: Session,
        chunk: Chunk,
        body: BodyStream,
    ) -> Result<u64> {
        self.require_writable(&session.repository)?;
        let registry = Arc::clone(self);
        traces::spawn(async move {
            let state = match registry.claim(&session, chunk.offset, None).await {
                Ok(state) => state,
                Err(refusal) => return refuse(refusal, body).await,
            };
            let appended = registry.append_claimed(&session, &state, chunk, body).await;
            if appended.is_err() {
                registry.release(&session, &state).await;
            }
            appended
        })
        .await?
    }

    /// Appends the last bytes and makes the session a blob. Durable.
    pub(crate) async fn finish(
        self: &Arc<Self>,
        session: Session,
        expected: Digest,
        chunk: Chunk,
        body: BodyStream,
    ) -> Result<()> {
        self.require_writable(&session.repository)?;
        let registry = Arc::clone(self);
        traces::spawn(async move {
            let key = registry.store.new_name(&expected);
            let closing = Closing {
                digest: expected,
                key: key.clone(),
            };
            let claiming = registry.claim(&session, chunk.offset, Some(closing));
            let (claimed, body) = {
                let _turn = registry.receiving.begin();
                meanwhile(body, registry.receiving.early_bytes(), claiming).await
            };
            let state = match claimed {
                Ok(state) => state,
                Err(refusal) => return refuse(refusal, body).await,
            };
            let closed = registry
                .close(&session, &state, &expected, &key, chunk, body)
                .await;
            match &closed {
                Ok(()) => {}
                // The object may be stored already, so that the session can't go on.
                Err(RegistryError::Metadata(_) | RegistryError::Storage(_)) => {
                    registry.abandon(&session).await;
                }
                Err(_) => registry.release(&session, &state).await,
            }
            closed
        })
        .await?
    }

    /// Stores a blob that comes in one piece. Durable.
    pub(crate) async fn push_blob(
        self: &Arc<Self>,
        repository: &RepoName,
        actor: &str,
        expected: Digest,
        chunk: Chunk,
        body: BodyStream,
    ) -> Result<()> {
        self.require_writable(repository)?;
        let (registry, repository, actor) = (Arc::clone(self), repository.clone(), actor.to_owned());
        traces::spawn(async move {
            let session = Session {
                id: UploadId::random(),
                repository,
            };
            let key = registry.store.new_name(&expected);
            let upload = NewUpload {
                id: session.id,
                repository: session.repository.clone(),
                principal: actor,
                algorithm: expected.algorithm(),
                closing: Some(Closing {
                    digest: expected,
                    key: key.clone(),
                }),
            };
            let creating = registry.metadata.create_upload(upload);
            let stored = creating.within(registry.query("create_upload")).await?;
            let state = UploadState {
                algorithm: expected.algorithm(),
                offset: 0,
                hash_state: None,
                same_boot: true,
                epoch: 1,
                notes: None,
                stored,
            };
            let closed = registry
                .close(&session, &state, &expected, &key, chunk, body)
                .await;
            if closed.is_err() {
                registry.abandon(&session).await;
            }
            closed
        })
        .await?
    }

    async fn claim(
        &self,
        session: &Session,
        offset: Option<u64>,
        closing: Option<Closing>,
    ) -> Result<UploadState> {
        let claim = ClaimUpload {
            id: session.id,
            repository: session.repository.clone(),
            offset,
            closing,
        };
        for _ in 0..BUSY_TRIES {
            let claiming = self.metadata.claim_upload(claim.clone());
            match claiming.within(self.query("claim_upload")).await? {
                ClaimOutcome::Claimed(state) => return Ok(state),
                ClaimOutcome::Unknown => return Err(RegistryError::UploadUnknown(session.id)),
                ClaimOutcome::WrongOffset(offset) => {
                    return Err(RegistryError::UploadOffset {
                        upload: session.id,
                        offset,
                    });
                }
                // A client that lost its connection comes back before the request it lost has noticed.
                ClaimOutcome::Busy => tokio::time::sleep(BUSY_PAUSE).await,
            }
        }
        Err(RegistryError::UploadBusy(session.id))
    }

    async fn append_claimed(
        &self,
        session: &Session,
        state: &UploadState,
        chunk: Chunk,
        body: BodyStream,
    ) -> Result<u64> {
        let begun = self.hasher(session, state, state.algorithm).await?;
        let source = Source {
            session,
            epoch: state.epoch,
            at: recorded(session, state),
            hasher: begun.hasher,
        };
        let mut received = self.receive(source, chunk, body).await?;
        check_length(chunk, received.offset - state.offset)?;
        if received.writer.is_none() && !received.pieces.is_empty() {
            let mut writer = self
                .writer(session, state.epoch, recorded(session, state))
                .await?;
            writer.append(std::mem::take(&mut received.pieces)).await?;
            received.writer = Some(writer);
        }
        let notes = match &mut received.writer {
            Some(writer) => settled_now(writer.as_mut()).await?,
            None => None,
        };
        let checkpoint = Checkpoint {
            id: session.id,
            epoch: state.epoch,
            offset: received.offset,
            hash_state: Some(received.hasher.save()),
            notes,
            release: true,
        };
        let recording = self.metadata.checkpoint_upload(checkpoint);
        if !recording.within(self.query("checkpoint_upload")).await? {
            return Err(RegistryError::UploadUnknown(session.id));
        }
        Ok(received.offset)
    }

    /// Lets other requests go on with the session where it was recorded last.
    async fn release(&self, session: &Session, state: &UploadState) {
        let checkpoint = Checkpoint {
            id: session.id,
            epoch: state.epoch,
            offset: 0,
            hash_state: None,
            notes: None,
            release: true,
        };
        if let Err(error) = self.metadata.checkpoint_upload(checkpoint).await {
            // Its lease runs out by itself.
            tracing::warn!(upload = %session.id, error = chain(&error), "upload not released");
        }
    }

    /// Drops a session that can't go on.
    pub(super) async fn abandon(&self, session: &Session) {
        let cancelled = self.metadata.cancel_upload(session.id, &session.repository).await;
        let discarded = self.store.discard_upload(session.id).await;
        if cancelled.is_err() || discarded.is_err() {
            tracing::warn!(upload = %session.id, "upload not dropped: it stays until it expires");
        }
    }
}

/// Refuses a request whose body nobody wants.
async fn refuse<T>(refusal: RegistryError, body: BodyStream) -> Result<T> {
    drain(body).await;
    Err(refusal)
}
