//! Byte quotas. A push in progress reserves its bytes in memory, so that two at once don't both take the last room; between
//! replicas a quota may be exceeded by what is on its way in the others.

use std::collections::HashMap;
use std::sync::Arc;

use oci::{Digest, RepoName};
use parking_lot::Mutex;

use crate::service::{Registry, RegistryError, Result};

#[derive(Clone, Default)]
pub(super) struct Reservations(Arc<Mutex<HashMap<RepoName, u64>>>);

/// Bytes on their way into a repository.
pub(in crate::service) struct Room {
    reservations: Reservations,
    repository: RepoName,
    bytes: u64,
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut reserved = self.reservations.0.lock();
        if let Some(bytes) = reserved.get_mut(&self.repository) {
            *bytes = bytes.saturating_sub(self.bytes);
            if *bytes == 0 {
                reserved.remove(&self.repository);
            }
        }
    }
}

impl Registry {
    /// Room for so many bytes more, until the result is dropped; by then they are counted. None: there is no quota.
    pub(in crate::service) async fn room(&self, repository: &RepoName, bytes: u64) -> Result<Option<Room>> {
        let quotas = self
            .policies
            .of(repository)
            .filter_map(|rule| Some((rule, rule.quota?.bytes)));
        let Some((rule, quota)) = quotas.min_by_key(|(_, quota)| *quota) else {
            return Ok(None);
        };
        let used = self.metadata.usage_bytes(repository).await?;
        let fits = {
            let mut reserved = self.policies.reservations.0.lock();
            let reserved = reserved.entry(repository.clone()).or_default();
            let fits = used.saturating_add(*reserved).saturating_add(bytes) <= quota;
            if fits {
                *reserved += bytes;
            }
            fits
        };
        if fits {
            return Ok(Some(Room {
                reservations: self.policies.reservations.clone(),
                repository: repository.clone(),
                bytes,
            }));
        }
        let trash = self.metadata.trash_bytes(repository).await?;
        Err(RegistryError::Policy {
            rule: rule.name.clone(),
            reason: format!(
                "repository {repository} has a quota of {quota} bytes, uses {used} ({trash} of them only for what is \
                 in the trash) and can't take {bytes} more"
            ),
        })
    }

    pub(in crate::service) fn has_quota(&self, repository: &RepoName) -> bool {
        self.policies.of(repository).any(|rule| rule.quota.is_some())
    }

    /// As [`Registry::room`], for a blob that may be there already.
    pub(in crate::service) async fn room_for(
        &self,
        repository: &RepoName,
        digest: &Digest,
        bytes: u64,
    ) -> Result<Option<Room>> {
        if !self.has_quota(repository) || self.blob(repository, digest).await.is_ok() {
            return Ok(None);
        }
        self.room(repository, bytes).await
    }

    /// Passes unless the quota is used up already, so that no client sends gigabytes for nothing.
    pub(in crate::service) async fn require_room(&self, repository: &RepoName) -> Result<()> {
        self.room(repository, 1).await.map(drop)
    }
}
