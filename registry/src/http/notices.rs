//! Telling webhooks what a request did, where one wants to know.

use oci::{Digest, Reference, RepoName};
use time::OffsetDateTime;

use super::app::Call;
use crate::metadata::StoredManifest;
use crate::service::webhooks::Notices;
use crate::service::webhooks::notice::{Action, Notice, Request, Subject};

/// Who is told, and by whose request. Made before the request is used up.
pub(super) struct Told<'a> {
    notices: &'a Notices,
    action: Action,
    request: Request,
}

impl<'a> Told<'a> {
    /// None: nobody wants to hear of this.
    pub(super) fn of_manifest(call: &Call<'a>, action: Action) -> Option<Self> {
        Self::of(call, action, false)
    }

    pub(super) fn of_blob(call: &Call<'a>, action: Action) -> Option<Self> {
        Self::of(call, action, true)
    }

    fn of(call: &Call<'a>, action: Action, blob: bool) -> Option<Self> {
        let notices = call.state.notices.get()?;
        if !notices.wants(action, blob) {
            return None;
        }
        let request = Request {
            method: call.request.method().clone(),
            actor: call.principal.actor(),
            origin: call.request.extensions().get().cloned().unwrap_or_default(),
        };
        Some(Self {
            notices,
            action,
            request,
        })
    }

    pub(super) fn manifest(self, repository: &RepoName, reference: &Reference, manifest: &StoredManifest) {
        let tag = match reference {
            Reference::Tag(tag) => Some(tag.clone()),
            Reference::Digest(_) => None,
        };
        let subject = Subject::Manifest {
            media_type: manifest.media_type.clone(),
            tag,
        };
        self.tell(
            repository,
            manifest.digest,
            Some(manifest.bytes.len() as u64),
            subject,
        );
    }

    /// `size` where it is known; `from` where it was mounted of.
    pub(super) fn blob(
        self,
        repository: &RepoName,
        digest: &Digest,
        size: Option<u64>,
        from: Option<RepoName>,
    ) {
        self.tell(repository, *digest, size, Subject::Blob { from });
    }

    fn tell(self, repository: &RepoName, digest: Digest, size: Option<u64>, subject: Subject) {
        self.notices.tell(Notice {
            action: self.action,
            repository: repository.clone(),
            subject,
            digest,
            size,
            request: self.request,
            at: OffsetDateTime::now_utc(),
        });
    }
}
