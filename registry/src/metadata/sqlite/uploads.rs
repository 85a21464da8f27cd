//! Upload sessions.

use async_trait::async_trait;
use oci::{Algorithm, HashState, RepoName};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::rows::{During, size, stored_size};
use super::writer::Durability::Async;
use super::{Sqlite, now};
use crate::metadata::{
    Checkpoint, ClaimOutcome, ClaimUpload, Closing, NewUpload, Result, UploadState, Uploads,
};
use crate::storage::UploadId;

/// A writer that has not been heard of for this long is gone.
const WRITER_LEASE_MICROS: i64 = 60_000_000;

#[async_trait]
impl Uploads for Sqlite {
    async fn create_upload(&self, upload: NewUpload) -> Result<bool> {
        let (boot_id, idle) = (self.boot_id.clone(), self.times.upload_idle);
        self.writer
            .run(Async, move |connection| {
                Box::pin(create(connection, upload, boot_id, idle))
            })
            .await
    }

    async fn claim_upload(&self, claim: ClaimUpload) -> Result<ClaimOutcome> {
        let (boot_id, times) = (self.boot_id.clone(), self.times);
        self.writer
            .run(Async, move |connection| {
                Box::pin(async move {
                    let now = now();
                    let claimed = sqlx::query(
                        "UPDATE uploads SET writer = 'here', writer_until = ?3, epoch = epoch + 1,
                             expires_at = min(?4, created_at + ?5)
                         WHERE id = ?1 AND repository = ?2 AND expires_at > ?6
                             AND (writer IS NULL OR writer_until < ?6) AND (?7 IS NULL OR offset = ?7)
                         RETURNING algorithm, offset, hash_state, boot_id, epoch",
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
                    let mut state = state(&row, &boot_id)?;
                    if let Some(closing) = &claim.closing {
                        state.stored = close_with(connection, claim.id, closing, now).await?;
                    }
                    Ok(ClaimOutcome::Claimed(state))
                })
            })
            .await
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
                             offset = CASE WHEN ?4 IS NULL THEN offset ELSE ?3 END,
                             boot_id = CASE WHEN ?4 IS NULL THEN boot_id ELSE ?5 END,
                             hash_state = coalesce(?4, hash_state),
                             writer = CASE WHEN ?6 IS NULL THEN NULL ELSE writer END, writer_until = ?6,
                             expires_at = min(?7, created_at + ?8)
                         WHERE id = ?1 AND epoch = ?2",
                    )
                    .bind(checkpoint.id.as_bytes())
                    .bind(checkpoint.epoch)
                    .bind(stored_size(checkpoint.offset))
                    .bind(checkpoint.hash_state.as_ref().map(HashState::as_bytes))
                    .bind(boot_id)
                    .bind(writer_until)
                    .bind(now + times.upload_idle)
                    .bind(times.upload_age)
                    .execute(connection)
                    .await
                    .during("recording an upload's progress")?;
                    Ok(updated.rows_affected() == 1)
                })
            })
            .await
    }

    async fn find_upload(&self, id: UploadId, repository: &RepoName) -> Result<Option<UploadState>> {
        let row = sqlx::query(
            "SELECT algorithm, offset, hash_state, boot_id, epoch FROM uploads
             WHERE id = ?1 AND repository = ?2 AND expires_at > ?3",
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
        let repository = repository.clone();
        self.writer
            .run(Async, move |connection| {
                Box::pin(async move {
                    let key: Option<Option<String>> = sqlx::query_scalar(
                        "DELETE FROM uploads WHERE id = ?1 AND repository = ?2 RETURNING key",
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

async fn create(
    connection: &mut SqliteConnection,
    upload: NewUpload,
    boot_id: String,
    idle: i64,
) -> Result<bool> {
    let now = now();
    let closing = upload.closing.as_ref();
    sqlx::query(
        "INSERT INTO uploads
             (id, repository, principal, algorithm, boot_id, created_at, expires_at, key, writer, writer_until, epoch)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )
    .bind(upload.id.as_bytes())
    .bind(upload.repository.as_str())
    .bind(upload.principal)
    .bind(algorithm_code(upload.algorithm))
    .bind(boot_id)
    .bind(now)
    .bind(now + idle)
    .bind(closing.map(|closing| closing.key.as_str()))
    .bind(closing.map(|_| "here"))
    .bind(closing.map(|_| now + WRITER_LEASE_MICROS))
    .bind(i64::from(closing.is_some()))
    .execute(&mut *connection)
    .await
    .during("creating an upload")?;
    match closing {
        Some(closing) => is_stored(connection, closing).await,
        None => Ok(false),
    }
}

/// Why a claim changed nothing.
async fn refusal(connection: &mut SqliteConnection, claim: &ClaimUpload, now: i64) -> Result<ClaimOutcome> {
    let found: Option<(i64, bool)> = sqlx::query_as(
        "SELECT offset, writer IS NOT NULL AND writer_until >= ?3 FROM uploads
         WHERE id = ?1 AND repository = ?2 AND expires_at > ?3",
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

/// Records the final name, dooming one that an earlier attempt left, and looks whether the bytes are needed at all.
async fn close_with(
    connection: &mut SqliteConnection,
    id: UploadId,
    closing: &Closing,
    now: i64,
) -> Result<bool> {
    sqlx::query(
        "INSERT INTO doomed (key, due_at) SELECT key, ?3 FROM uploads WHERE id = ?1 AND key IS NOT NULL;
         UPDATE uploads SET key = ?2 WHERE id = ?1",
    )
    .bind(id.as_bytes())
    .bind(closing.key.as_str())
    .bind(now)
    .execute(&mut *connection)
    .await
    .during("naming an upload's object")?;
    is_stored(connection, closing).await
}

async fn is_stored(connection: &mut SqliteConnection, closing: &Closing) -> Result<bool> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM blobs WHERE digest = ?1 AND state = 0)")
        .bind(closing.digest.to_bytes())
        .fetch_one(connection)
        .await
        .during("finding a blob")
}

/// Gives the licence to delete an object.
pub(super) async fn doom(connection: &mut SqliteConnection, key: &str, due_at: i64) -> Result<()> {
    sqlx::query("INSERT INTO doomed (key, due_at) VALUES (?1, ?2)")
        .bind(key)
        .bind(due_at)
        .execute(connection)
        .await
        .during("dooming an object")?;
    Ok(())
}

fn state(row: &SqliteRow, boot_id: &str) -> Result<UploadState> {
    let hash_state: Option<Vec<u8>> = row.try_get("hash_state").during("reading an upload")?;
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
