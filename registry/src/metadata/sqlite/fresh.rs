//! Upload sessions that nobody has written to yet.
//!
//! They have nothing that a crash could lose, so they cost no transaction: the first claim writes the row. Most uploads
//! are one POST and one PUT, which makes that the row's only write before the commit deletes it.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::now;
use crate::metadata::NewUpload;
use crate::storage::UploadId;

/// Sessions kept here; more get their row at once.
const SESSIONS_MAX: usize = 10_000;

#[derive(Default)]
pub(super) struct Fresh(Mutex<HashMap<UploadId, Session>>);

struct Session {
    upload: NewUpload,
    created_at: i64,
    /// A claim is writing the row; until that is committed the session is still found here.
    taken: bool,
}

impl Fresh {
    /// Gives the upload back if there is no room.
    pub(super) fn add(&self, upload: NewUpload) -> Result<(), NewUpload> {
        let mut sessions = self.0.lock();
        if sessions.len() >= SESSIONS_MAX {
            return Err(upload);
        }
        sessions.insert(
            upload.id,
            Session {
                upload,
                created_at: now(),
                taken: false,
            },
        );
        Ok(())
    }

    pub(super) fn find(&self, id: UploadId) -> Option<NewUpload> {
        self.0.lock().get(&id).map(|session| session.upload.clone())
    }

    /// To be called by the writer, who runs one job at a time: the session with its time of creation, once.
    pub(super) fn take(&self, id: UploadId) -> Option<(NewUpload, i64)> {
        let mut sessions = self.0.lock();
        let session = sessions.get_mut(&id).filter(|session| !session.taken)?;
        session.taken = true;
        Some((session.upload.clone(), session.created_at))
    }

    /// All that nobody has claimed, with their times of creation.
    pub(super) fn drain(&self) -> Vec<(NewUpload, i64)> {
        let drained = self
            .0
            .lock()
            .drain()
            .map(|(_, session)| session)
            .collect::<Vec<_>>();
        drained
            .into_iter()
            .filter(|session| !session.taken)
            .map(|session| (session.upload, session.created_at))
            .collect()
    }

    pub(super) fn remove(&self, id: UploadId) {
        self.0.lock().remove(&id);
    }

    pub(super) fn expire(&self, created_before: i64) {
        self.0
            .lock()
            .retain(|_, session| session.taken || session.created_at > created_before);
    }
}
