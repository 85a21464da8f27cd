//! Upload sessions.

use std::sync::Arc;

use async_trait::async_trait;
use oci::{Algorithm, HashState, RepoName};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::rows::{During, size, stored_size};
use super::writer::Durability::Async;
use super::{Sqlite, Times, now};
use crate::metadata::{
    Checkpoint, ClaimOutcome, ClaimUpload, Closing, NewUpload, Result, UploadState, Uploads,
};
use crate::storage::{ObjectName, UploadId, UploadNotes};

/// A writer that has not been heard of for this long is gone.
const WRITER_LEASE_MICROS: i64 = 60_000_000;

#[async_trait]
impl Uploads for Sqlite {
    async fn create_upload(&self, upload: NewUpload) -> Result<bool> {
        let upload = match upload.closing {
            None => match self.fresh.add(upload) {
                Ok(()) => return Ok(false),
                Err(upload) => upload,
            },
            Some(_) => upload,
        };
        let (boot_id, idle) = (self.boot_id.clone(), self.times.upload_idle);
        self.writer
            .run(Async, move |connection| {
                Box::pin(async move {
                    let writes = upload.closing.is_some();
                    insert(connection, &upload, now(), writes, &boot_id, idle).await
                })
            })
            .await
    }

    async fn claim_upload(&self, claim: ClaimUpload) -> Result<ClaimOutcome> {
        let (id, fresh) = (claim.id, Arc::clone(&self.fresh));
        let (boot_id, times) = (self.boot_id.clone(), self.times);
        let was_fresh = self.fresh.find(id).is_some();
        let outcome = self
            .writer
            .run(Async, move |connection| {
                Box::pin(async move {
                    if let Some(upload) = fresh.find(id) {
                        if upload.repository != claim.repository {
                            return Ok(ClaimOutcome::Unknown);
                        }
                        if claim.offset.is_some_and(|offset| offset > 0) {
                            return Ok(ClaimOutcome::WrongOffset(0));
                        }
                        if let Some((upload, created_at)) = fresh.take(id) {
                            return claim_fresh(connection, upload, created_at, claim, &boot_id, times).await;
                        }
                    }
                    claim_recorded(connection, claim, &boot_id, times).await
                })
            })
            .await;
        // Not before the row is there for everybody.
        if was_fresh && !matches!(outcome, Ok(ClaimOutcome::WrongOffset(_) | ClaimOutcome::Unknown)) {
            self.fresh.remove(id);
        }
        outcome
    }

    async fn checkpoint_upload(&self, checkpoint: Checkpoint) -> Result<bool> {
        let (boot_id, times) = (self.boot_id.clone(), self.times);
        self.writer
            .run(Async, move |connection| {
                Box::pin(async move {
                    let now = now();
                    let writer_until = (!checkpoint.release).then_some(now + WRITER_LEASE_MICROS);
                    // Without new bytes the recorded ones keep the boot in which they were written.
                    let updated = sqlx::query(
                        "UPDATE uploads SET
                             offset = CASE WHEN $4 IS NULL THEN offset ELSE $3 END,
                             boot_id = CASE WHEN $4 IS NULL THEN boot_id ELSE $5 END,
                             hash_state = coalesce($4, hash_state),
                             writer = CASE WHEN $6 IS NULL THEN NULL ELSE writer END, writer_until = $6,
                             expires_at = min($7, created_at + $8), notes = coalesce($9, notes)
                         WHERE id = $1 AND epoch = $2",
                    )
                    .bind(checkpoint.id.as_bytes())
                    .bind(checkpoint.epoch)
                    .bind(stored_size(checkpoint.offset))
                    .bind(checkpoint.hash_state.as_ref().map(HashState::as_bytes))
                    .bind(boot_id)
                    .bind(writer_until)
                    .bind(now + times.upload_idle)
                    .bind(times.upload_age)
                    .bind(checkpoint.notes.as_ref().map(UploadNotes::as_bytes))
                    .execute(connection)
                    .await
                    .during("recording an upload's progress")?;
                    Ok(updated.rows_affected() == 1)
                })
            })
            .await
    }

    async fn note_upload(
        &self,
        id: UploadId,
        epoch: i64,
        key: Option<ObjectName>,
        notes: UploadNotes,
    ) -> Result<bool> {
        self.writer
            .run(Async, move |connection| {
                Box::pin(async move {
                    let updated = sqlx::query(
                        "INSERT INTO doomed (key, due_at)
                             SELECT key, $5 FROM uploads WHERE id = $1 AND epoch = $2 AND $3 IS NOT NULL AND key <> $3;
                         UPDATE uploads SET key = coalesce($3, key), notes = $4 WHERE id = $1 AND epoch = $2
                         RETURNING epoch",
                    )
                    .bind(id.as_bytes())
                    .bind(epoch)
                    .bind(key.as_ref().map(ObjectName::as_str))
                    .bind(notes.as_bytes())
                    .bind(now())
                    .fetch_optional(connection)
                    .await
                    .during("noting what an upload consists of")?;
                    Ok(updated.is_some())
                })
            })
            .await
    }

    async fn find_upload(&self, id: UploadId, repository: &RepoName) -> Result<Option<UploadState>> {
        if let Some(upload) = self.fresh.find(id) {
            return Ok((upload.repository == *repository).then(|| untouched(upload.algorithm, false)));
        }
        let row = sqlx::query(
            "SELECT algorithm, offset, hash_state, boot_id, epoch, notes FROM uploads
             WHERE id = $1 AND repository = $2 AND expires_at > $3",
        )
        .bind(id.as_bytes())
        .bind(repository.as_str())
        .bind(now())
        .fetch_optional(&self.readers)
        .await
        .during("finding an upload")?;
        row.map(|row| state(&row, &self.boot_id)).transpose()
    }

    async fn cancel_upload(&self, id: UploadId, repository: &RepoName) -> Result<bool> {
        let (repository, fresh) = (repository.clone(), Arc::clone(&self.fresh));
        self.writer
            .run(Async, move |connection| {
                Box::pin(async move {
                    if fresh
                        .find(id)
                        .is_some_and(|upload| upload.repository == repository)
                        && fresh.take(id).is_some()
                    {
                        fresh.remove(id);
                        return Ok(true);
                    }
                    let key: Option<Option<String>> = sqlx::query_scalar(
                        "DELETE FROM uploads WHERE id = $1 AND repository = $2 RETURNING key",
                    )
                    .bind(id.as_bytes())
                    .bind(repository.as_str())
                    .fetch_optional(&mut *connection)
                    .await
                    .during("cancelling an upload")?;
                    if let Some(Some(key)) = &key {
                        doom(connection, key, now()).await?;
                    }
                    Ok(key.is_some())
                })
            })
            .await
    }
}

/// Writes a session's row; with `writes`, its first writer has it already. Whether the closing digest's bytes are there
/// is returned.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    upload: &NewUpload,
    created_at: i64,
    writes: bool,
    boot_id: &str,
    idle: i64,
) -> Result<bool> {
    let now = now();
    let closing = upload.closing.as_ref();
    sqlx::query_scalar(
        "INSERT INTO uploads
             (id, repository, principal, algorithm, boot_id, created_at, expires_at, key, writer, writer_until, epoch)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);
         SELECT EXISTS (SELECT 1 FROM blobs WHERE digest = $12 AND state = 0)",
    )
    .bind(upload.id.as_bytes())
    .bind(upload.repository.as_str())
    .bind(upload.principal.as_str())
    .bind(algorithm_code(upload.algorithm))
    .bind(boot_id)
    .bind(created_at)
    .bind(now + idle)
    .bind(closing.map(|closing| closing.key.as_str()))
    .bind(writes.then_some("here"))
    .bind(writes.then_some(now + WRITER_LEASE_MICROS))
    .bind(i64::from(writes))
    .bind(closing.map(|closing| closing.digest.to_bytes()))
    .fetch_one(connection)
    .await
    .during("creating an upload")
}

/// The first claim of a session writes its row.
async fn claim_fresh(
    connection: &mut SqliteConnection,
    mut upload: NewUpload,
    created_at: i64,
    claim: ClaimUpload,
    boot_id: &str,
    times: Times,
) -> Result<ClaimOutcome> {
    upload.closing = claim.closing;
    let stored = insert(connection, &upload, created_at, true, boot_id, times.upload_idle).await?;
    Ok(ClaimOutcome::Claimed(untouched(upload.algorithm, stored)))
}

async fn claim_recorded(
    connection: &mut SqliteConnection,
    claim: ClaimUpload,
    boot_id: &str,
    times: Times,
) -> Result<ClaimOutcome> {
    let now = now();
    let claimed = sqlx::query(
        "UPDATE uploads SET writer = 'here', writer_until = $3, epoch = epoch + 1,
             expires_at = min($4, created_at + $5)
         WHERE id = $1 AND repository = $2 AND expires_at > $6
             AND (writer IS NULL OR writer_until < $6) AND ($7 IS NULL OR offset = $7)
         RETURNING algorithm, offset, hash_state, boot_id, epoch, notes",
    )
    .bind(claim.id.as_bytes())
    .bind(claim.repository.as_str())
    .bind(now + WRITER_LEASE_MICROS)
    .bind(now + times.upload_idle)
    .bind(times.upload_age)
    .bind(now)
    .bind(claim.offset.map(stored_size))
    .fetch_optional(&mut *connection)
    .await
    .during("claiming an upload")?;
    let Some(row) = claimed else {
        return refusal(connection, &claim, now).await;
    };
    let mut state = state(&row, boot_id)?;
    if let Some(closing) = &claim.closing {
        state.stored = close_with(connection, claim.id, closing, now).await?;
    }
    Ok(ClaimOutcome::Claimed(state))
}

/// A session without bytes, as its first writer finds it.
fn untouched(algorithm: Algorithm, stored: bool) -> UploadState {
    UploadState {
        algorithm,
        offset: 0,
        hash_state: None,
        same_boot: true,
        epoch: 1,
        notes: None,
        stored,
    }
}

/// Why a claim changed nothing.
async fn refusal(connection: &mut SqliteConnection, claim: &ClaimUpload, now: i64) -> Result<ClaimOutcome> {
    let found: Option<(i64, bool)> = sqlx::query_as(
        "SELECT offset, writer IS NOT NULL AND writer_until >= $3 FROM uploads
         WHERE id = $1 AND repository = $2 AND expires_at > $3",
    )
    .bind(claim.id.as_bytes())
    .bind(claim.repository.as_str())
    .bind(now)
    .fetch_optional(connection)
    .await
    .during("finding an upload")?;
    Ok(match found {
        None => ClaimOutcome::Unknown,
        Some((_, true)) => ClaimOutcome::Busy,
        Some((offset, false)) => ClaimOutcome::WrongOffset(size(offset)),
    })
}

/// Records the final name unless the store has noted another, dooming one that an earlier attempt left, and looks whether the bytes are needed at all.
async fn close_with(
    connection: &mut SqliteConnection,
    id: UploadId,
    closing: &Closing,
    now: i64,
) -> Result<bool> {
    sqlx::query_scalar(
        "INSERT INTO doomed (key, due_at) SELECT key, $3 FROM uploads
             WHERE id = $1 AND key IS NOT NULL AND notes IS NULL;
         UPDATE uploads SET key = $2 WHERE id = $1 AND notes IS NULL;
         SELECT EXISTS (SELECT 1 FROM blobs WHERE digest = $4 AND state = 0)",
    )
    .bind(id.as_bytes())
    .bind(closing.key.as_str())
    .bind(now)
    .bind(closing.digest.to_bytes())
    .fetch_one(connection)
    .await
    .during("naming an upload's object")
}

/// Gives the licence to delete an object.
pub(super) async fn doom(connection: &mut SqliteConnection, key: &str, due_at: i64) -> Result<()> {
    sqlx::query("INSERT INTO doomed (key, due_at) VALUES ($1, $2)")
        .bind(key)
        .bind(due_at)
        .execute(connection)
        .await
        .during("dooming an object")?;
    Ok(())
}

fn state(row: &SqliteRow, boot_id: &str) -> Result<UploadState> {
    let hash_state: Option<Vec<u8>> = row.try_get("hash_state").during("reading an upload")?;
    let notes: Option<Vec<u8>> = row.try_get("notes").during("reading an upload")?;
    let algorithm: i64 = row.try_get("algorithm").during("reading an upload")?;
    Ok(UploadState {
        algorithm: if algorithm == 2 {
            Algorithm::Sha512
        } else {
            Algorithm::Sha256
        },
        offset: size(row.try_get("offset").during("reading an upload")?),
        hash_state: hash_state.map(HashState::from_bytes),
        same_boot: row.try_get::<&str, _>("boot_id").during("reading an upload")? == boot_id,
        epoch: row.try_get("epoch").during("reading an upload")?,
        notes: notes.map(UploadNotes::from_bytes),
        stored: false,
    })
}

/// As in a stored digest.
fn algorithm_code(algorithm: Algorithm) -> i64 {
    match algorithm {
        Algorithm::Sha256 => 1,
        Algorithm::Sha512 => 2,
    }
}
