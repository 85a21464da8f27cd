//! Locks on a repository's links to blobs. They are taken before anything is asked about the links, because a statement
//! sees what was committed before it began, and in the order of blobs, so that nobody waits in a circle.

use oci::Digest;
use sqlx::postgres::PgConnection;

use super::rows::{During, digest_list};
use crate::metadata::Result;

/// `$1` the repository, `$2` digests.
pub(super) const HOLD: &str = "SELECT blob_id FROM repository_blobs
     WHERE repository_id = $1 AND blob_id = ANY(ARRAY(
         SELECT b.id FROM unnest($2::bytea[]) AS q (digest) JOIN blobs b ON b.digest = q.digest))
     ORDER BY blob_id FOR KEY SHARE";

/// `$1` the repository, `$2` blobs.
pub(super) const LOCK: &str = "SELECT blob_id FROM repository_blobs
     WHERE repository_id = $1 AND blob_id = ANY($2::bigint[]) ORDER BY blob_id FOR NO KEY UPDATE";

/// `$1` the repository, `$2` blobs, `$3` when, `$4` why.
pub(super) const REVIEW: &str = "UPDATE repository_blobs SET review_at = $3, review_reason = $4
     WHERE repository_id = $1 AND blob_id = ANY($2::bigint[]) AND review_at IS NULL";

/// Keeps collection from taking the links of these blobs, as far as they are there, until the commit: what is asked
/// about them afterwards stays true.
pub(super) async fn hold<'d>(
    connection: &mut PgConnection,
    repository: i64,
    digests: impl IntoIterator<Item = &'d Digest>,
) -> Result<()> {
    let digests = digest_list(digests);
    if digests.is_empty() {
        return Ok(());
    }
    sqlx::query(HOLD)
        .bind(repository)
        .bind(digests)
        .execute(connection)
        .await
        .during("holding links")?;
    Ok(())
}

/// Enqueues links that something ceases to hold. The lock waits for a worker that decides about one of them and may still
/// see what holds it: only then is it known whether the link has a review.
pub(super) async fn review(
    connection: &mut PgConnection,
    repository: i64,
    blobs: &[i64],
    at: i64,
    reason: &'static str,
) -> Result<()> {
    if blobs.is_empty() {
        return Ok(());
    }
    sqlx::query(LOCK)
        .bind(repository)
        .bind(blobs)
        .execute(&mut *connection)
        .await
        .during("locking links to review")?;
    sqlx::query(REVIEW)
        .bind(repository)
        .bind(blobs)
        .bind(at)
        .bind(reason)
        .execute(connection)
        .await
        .during("enqueueing links")?;
    Ok(())
}
