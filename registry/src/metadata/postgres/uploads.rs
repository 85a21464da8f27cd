//! Upload sessions: rows from the first request on, so that any replica can go on with them.

use async_trait::async_trait;
use oci::{Algorithm, HashState, RepoName};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::Durability::Async;
use super::Postgres;
use super::rows::{During, size, stored_size};
use super::transaction::commit;
use crate::metadata::{
    Checkpoint, ClaimOutcome, ClaimUpload, Closing, NewUpload, Result, UploadState, Uploads,
};
use crate::storage::{ObjectName, UploadId, UploadNotes};

/// A writer that has not been heard of for this long is gone.
const WRITER_LEASE_MICROS: i64 = 60_000_000;

#[async_trait]
impl Uploads for Postgres {
    async fn create_upload(&self, upload: NewUpload) -> Result<bool> {
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            let stored = self.insert_upload(&mut tx, &upload).await?;
            commit(tx).await?;
            Ok(stored)
        })
        .await
    }

    async fn claim_upload(&self, claim: ClaimUpload) -> Result<ClaimOutcome> {
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            let outcome = self.claim(&mut tx, &claim).await?;
            commit(tx).await?;
            Ok(outcome)
        })
        .await
    }

    async fn checkpoint_upload(&self, checkpoint: Checkpoint) -> Result<bool> {
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            // Without new bytes the recorded ones keep the boot in which they were written.
            let updated = sqlx::query(
                "UPDATE uploads SET
                     \"offset\" = CASE WHEN $4::bytea IS NULL THEN \"offset\" ELSE $3 END,
                     boot_id = CASE WHEN $4::bytea IS NULL THEN boot_id ELSE $5 END,
                     hash_state = coalesce($4, hash_state),
                     writer = CASE WHEN $6 THEN NULL ELSE writer END,
                     writer_until = CASE WHEN $6 THEN NULL ELSE now_micros() + $7 END,
                     expires_at = least(now_micros() + $8, created_at + $9), notes = coalesce($10, notes)
                 WHERE id = $1 AND epoch = $2",
            )
            .bind(checkpoint.id.as_bytes())
            .bind(checkpoint.epoch)
            .bind(stored_size(checkpoint.offset))
            .bind(checkpoint.hash_state.as_ref().map(HashState::as_bytes))
            .bind(&self.boot_id)
            .bind(checkpoint.release)
            .bind(WRITER_LEASE_MICROS)
            .bind(self.times.upload_idle)
            .bind(self.times.upload_age)
            .bind(checkpoint.notes.as_ref().map(UploadNotes::as_bytes))
            .execute(&mut *tx)
            .await
            .during("recording an upload's progress")?;
            commit(tx).await?;
            Ok(updated.rows_affected() == 1)
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
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            let updated = sqlx::query(
                // Both see the row as it was before.
                "WITH doom AS (INSERT INTO doomed (key, due_at)
                     SELECT key, now_micros() FROM uploads WHERE id = $1 AND epoch = $2 AND key <> $3::text)
                 UPDATE uploads SET key = coalesce($3::text, key), notes = $4 WHERE id = $1 AND epoch = $2",
            )
            .bind(id.as_bytes())
            .bind(epoch)
            .bind(key.as_ref().map(ObjectName::as_str))
            .bind(notes.as_bytes())
            .execute(&mut *tx)
            .await
            .during("noting what an upload consists of")?;
            commit(tx).await?;
            Ok(updated.rows_affected() == 1)
        })
        .await
    }

    async fn find_upload(&self, id: UploadId, repository: &RepoName) -> Result<Option<UploadState>> {
        let row = self
            .retrying(|| async {
                sqlx::query(
                    "SELECT algorithm, \"offset\", hash_state, boot_id, epoch, notes FROM uploads
                     WHERE id = $1 AND repository = $2 AND expires_at > now_micros()",
                )
                .bind(id.as_bytes())
                .bind(repository.as_str())
                .fetch_optional(&self.pool())
                .await
                .during("finding an upload")
            })
            .await?;
        row.map(|row| state(&row, &self.boot_id)).transpose()
    }

    async fn cancel_upload(&self, id: UploadId, repository: &RepoName) -> Result<bool> {
        self.retrying(|| async {
            let mut tx = self.begin(Async).await?;
            let cancelled: i64 = sqlx::query_scalar(
                "WITH gone AS (DELETE FROM uploads WHERE id = $1 AND repository = $2 RETURNING key),
                     doom AS (INSERT INTO doomed (key, due_at)
                         SELECT key, now_micros() FROM gone WHERE key IS NOT NULL)
                 SELECT count(*) FROM gone",
            )
            .bind(id.as_bytes())
            .bind(repository.as_str())
            .fetch_one(&mut *tx)
            .await
            .during("cancelling an upload")?;
            commit(tx).await?;
            Ok(cancelled == 1)
        })
        .await
    }
}

impl Postgres {
    /// Writes a session's row; one that closes in the same request has its writer already. Whether the closing
    /// digest's bytes are there is returned.
    async fn insert_upload(&self, connection: &mut PgConnection, upload: &NewUpload) -> Result<bool> {
        let closing = upload.closing.as_ref();
        sqlx::query_scalar(
            "WITH session AS (INSERT INTO uploads
                 (id, repository, principal, algorithm, boot_id, created_at, expires_at, key, writer, writer_until,
                  epoch)
                 VALUES ($1, $2, $3, $4, $5, now_micros(), now_micros() + $6, $7, $8,
                     CASE WHEN $8::text IS NULL THEN NULL ELSE now_micros() + $9 END, $10))
             SELECT EXISTS (SELECT 1 FROM blobs WHERE digest = $11 AND state = 0)",
        )
        .bind(upload.id.as_bytes())
        .bind(upload.repository.as_str())
        .bind(upload.principal.as_str())
        .bind(algorithm_code(upload.algorithm))
        .bind(&self.boot_id)
        .bind(self.times.upload_idle)
        .bind(closing.map(|closing| closing.key.as_str()))
        .bind(closing.map(|_| self.replica.as_str()))
        .bind(WRITER_LEASE_MICROS)
        .bind(i64::from(closing.is_some()))
        .bind(closing.map(|closing| closing.digest.to_bytes()))
        .fetch_one(connection)
        .await
        .during("creating an upload")
    }

    async fn claim(&self, connection: &mut PgConnection, claim: &ClaimUpload) -> Result<ClaimOutcome> {
        let claimed = sqlx::query(
            "UPDATE uploads SET writer = $3, writer_until = now_micros() + $4, epoch = epoch + 1,
                 expires_at = least(now_micros() + $5, created_at + $6)
             WHERE id = $1 AND repository = $2 AND expires_at > now_micros()
                 AND (writer IS NULL OR writer_until < now_micros()) AND ($7::bigint IS NULL OR \"offset\" = $7)
             RETURNING algorithm, \"offset\", hash_state, boot_id, epoch, notes",
        )
        .bind(claim.id.as_bytes())
        .bind(claim.repository.as_str())
        .bind(&self.replica)
        .bind(WRITER_LEASE_MICROS)
        .bind(self.times.upload_idle)
        .bind(self.times.upload_age)
        .bind(claim.offset.map(stored_size))
        .fetch_optional(&mut *connection)
        .await
        .during("claiming an upload")?;
        let Some(row) = claimed else {
            return refusal(connection, claim).await;
        };
        let mut state = state(&row, &self.boot_id)?;
        if let Some(closing) = &claim.closing {
            state.stored = close_with(connection, claim.id, closing).await?;
        }
        Ok(ClaimOutcome::Claimed(state))
    }
}

/// Why a claim changed nothing.
async fn refusal(connection: &mut PgConnection, claim: &ClaimUpload) -> Result<ClaimOutcome> {
    let found: Option<(i64, bool)> = sqlx::query_as(
        "SELECT \"offset\", writer IS NOT NULL AND writer_until >= now_micros() FROM uploads
         WHERE id = $1 AND repository = $2 AND expires_at > now_micros()",
    )
    .bind(claim.id.as_bytes())
    .bind(claim.repository.as_str())
    .fetch_optional(connection)
    .await
    .during("finding an upload")?;
    Ok(match found {
        None => ClaimOutcome::Unknown,
        Some((offset, false)) if claim.offset.is_some_and(|wanted| wanted != size(offset)) => {
            ClaimOutcome::WrongOffset(size(offset))
        }
        // Or it was released since the claim, which the caller's next try will find.
        Some(_) => ClaimOutcome::Busy,
    })
}

/// Records the final name unless the store has noted another, dooming one that an earlier attempt left, and looks whether the bytes are needed at all.
async fn close_with(connection: &mut PgConnection, id: UploadId, closing: &Closing) -> Result<bool> {
    sqlx::query_scalar(
        "WITH doom AS (INSERT INTO doomed (key, due_at)
                 SELECT key, now_micros() FROM uploads
                 WHERE id = $1 AND key IS NOT NULL AND notes IS NULL),
             named AS (UPDATE uploads SET key = $2 WHERE id = $1 AND notes IS NULL)
         SELECT EXISTS (SELECT 1 FROM blobs WHERE digest = $3 AND state = 0)",
    )
    .bind(id.as_bytes())
    .bind(closing.key.as_str())
    .bind(closing.digest.to_bytes())
    .fetch_one(connection)
    .await
    .during("naming an upload's object")
}

/// Gives the licence to delete an object now.
pub(super) async fn doom(connection: &mut PgConnection, key: &str) -> Result<()> {
    sqlx::query("INSERT INTO doomed (key, due_at) VALUES ($1, now_micros())")
        .bind(key)
        .execute(connection)
        .await
        .during("dooming an object")?;
    Ok(())
}

fn state(row: &PgRow, boot_id: &str) -> Result<UploadState> {
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
