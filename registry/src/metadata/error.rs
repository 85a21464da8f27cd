//! Failures of the metadata store. What a caller can expect (a missing blob, a busy session) are outcomes, not errors.

use std::error::Error;

#[derive(Debug, thiserror::Error)]
pub(crate) enum MetadataError {
    #[error("database, {operation}")]
    Database {
        operation: &'static str,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It may answer when asked again: it restarts, or is busier than it can bear.
    #[error("database does not answer, {operation}")]
    Unavailable {
        operation: &'static str,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("database has an invalid {what}")]
    Corrupt {
        what: &'static str,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("the transaction was not committed")]
    NotCommitted,
    #[error("another replica has been migrating the database for too long")]
    Migrating,
    #[error("database is closed")]
    Closed,
    #[error("database schema needs a newer layeryard: it says at least {needed}, this is {ours}")]
    TooNew { needed: i64, ours: i64 },
}
