//! The end of an upload: from its last byte to a durable blob.

use oci::{Algorithm, Digest, Hasher};

use futures::StreamExt;

use super::batches::BodyStream;
use super::ingest::{Received, Source};
use super::{Chunk, Registry, RegistryError, Result, Session};
use crate::metadata::{CommitBlob, CommitOutcome, UploadState};
use crate::storage::{ObjectName, Upload};
use crate::traces::Traced as _;

/// A hasher that has seen what a session has.
pub(super) struct Begun {
    pub(super) hasher: Hasher,
    /// It is of the session's own algorithm and not of the wanted one, in which only the finished object can be hashed.
    pub(super) other_algorithm: bool,
}

impl Registry {
    pub(super) async fn close(
        &self,
        session: &Session,
        state: &UploadState,
        expected: &Digest,
        key: &ObjectName,
        chunk: Chunk,
        body: BodyStream,
    ) -> Result<()> {
        let begun = self.hasher(session, state, expected.algorithm()).await?;
        let source = Source {
            session,
            epoch: state.epoch,
            at: recorded(session, state),
            hasher: begun.hasher,
        };
        let received = self.receive(source, chunk, body).await?;
        check_length(chunk, received.offset - state.offset)?;
        if !begun.other_algorithm {
            check_digest(expected, received.hasher.clone().finish())?;
        }
        let _room = self
            .room_for(&session.repository, expected, received.offset)
            .await?;
        let mut commit = CommitBlob {
            upload: session.id,
            epoch: state.epoch,
            repository: session.repository.clone(),
            digest: *expected,
            size: received.offset,
            key: None,
        };
        // Only for bytes that were seen to be the right ones.
        let stored = state.stored && !begun.other_algorithm;
        if stored && self.commit(commit.clone()).await? == CommitOutcome::Committed {
            if state.offset > 0 || state.notes.is_some() || received.writer.is_some() {
                self.store.discard_upload(session.id).await?;
            }
            return Ok(());
        }
        let key = self.store_object(session, state, received, key).await?;
        if begun.other_algorithm {
            let actual = self.hash_object(&key, commit.size, expected.algorithm()).await?;
            if let Err(error) = check_digest(expected, actual) {
                // It is an object now and can't be appended to.
                self.abandon(session).await;
                return Err(error);
            }
        }
        commit.key = Some(key.clone());
        if self.commit(commit).await? == CommitOutcome::Committed {
            return Ok(());
        }
        // Cancelled or expired meanwhile: nobody may have doomed the object before it was there.
        self.metadata.doom_orphans(std::slice::from_ref(&key)).await?;
        Err(RegistryError::UploadUnknown(session.id))
    }

    async fn commit(&self, commit: CommitBlob) -> Result<CommitOutcome> {
        let committing = self.metadata.commit_blob(commit);
        Ok(committing.within(self.query("commit_blob")).await?)
    }

    async fn store_object(
        &self,
        session: &Session,
        state: &UploadState,
        received: Received,
        key: &ObjectName,
    ) -> Result<ObjectName> {
        match received.writer {
            Some(writer) => Ok(writer.finish(key).await?),
            None if state.offset == 0 && state.notes.is_none() => {
                self.store.put(session.id, key, received.pieces).await?;
                Ok(key.clone())
            }
            None => {
                let mut writer = self
                    .writer(session, state.epoch, recorded(session, state))
                    .await?;
                writer.append(received.pieces).await?;
                Ok(writer.finish(key).await?)
            }
        }
    }

    /// The hasher that has seen the session's bytes: as it was saved, unless those bytes may be lost or another
    /// algorithm is wanted than the session began with.
    pub(super) async fn hasher(
        &self,
        session: &Session,
        state: &UploadState,
        algorithm: Algorithm,
    ) -> Result<Begun> {
        let begun = |hasher, other_algorithm| Begun {
            hasher,
            other_algorithm,
        };
        if state.offset == 0 {
            return Ok(begun(Hasher::new(algorithm), false));
        }
        // What a store has notes of doesn't lie in this machine's page cache.
        let safe = state.same_boot || state.notes.is_some();
        let saved = state.hash_state.as_ref().filter(|_| safe);
        let saved = saved.and_then(|saved| Hasher::restore(saved).ok());
        if algorithm == state.algorithm
            && let Some(hasher) = saved
        {
            return Ok(begun(hasher, false));
        }
        match (
            self.store.hash_upload(&recorded(session, state), algorithm).await,
            saved,
        ) {
            (Ok(Some(hasher)), _) => Ok(begun(hasher, false)),
            (Ok(None), Some(hasher)) => Ok(begun(hasher, true)),
            // A power cut took bytes that were recorded: the client has to begin again.
            (Err(_), _) if !safe => {
                self.abandon(session).await;
                Err(RegistryError::UploadUnknown(session.id))
            }
            (Ok(None), None) => Err(RegistryError::UploadUnknown(session.id)),
            (Err(error), _) => Err(error.into()),
        }
    }

    async fn hash_object(&self, key: &ObjectName, size: u64, algorithm: Algorithm) -> Result<Digest> {
        let mut bytes = self.store.read(key, 0..size).await?;
        let mut hasher = Hasher::new(algorithm);
        while let Some(piece) = bytes.next().await {
            let piece = piece?;
            hasher = tokio::task::spawn_blocking(move || {
                hasher.update(&piece);
                hasher
            })
            .await?;
        }
        Ok(hasher.finish())
    }
}

/// The session's bytes, as the store knows them.
pub(super) fn recorded(session: &Session, state: &UploadState) -> Upload {
    Upload {
        id: session.id,
        offset: state.offset,
        notes: state.notes.clone(),
    }
}

pub(super) fn check_length(chunk: Chunk, actual: u64) -> Result<()> {
    match chunk.length {
        Some(expected) if expected != actual => Err(RegistryError::BodyLength { expected, actual }),
        _ => Ok(()),
    }
}

fn check_digest(expected: &Digest, actual: Digest) -> Result<()> {
    if actual == *expected {
        return Ok(());
    }
    Err(RegistryError::DigestMismatch {
        expected: *expected,
        actual,
    })
}
