//! One blob from one registry to another.

use std::sync::Arc;

use async_trait::async_trait;
use futures::TryStreamExt as _;
use oci::Descriptor;

use super::{Endpoint, Progress};
use crate::error::Error;
use crate::registry::{BlobSource, ByteStream};

/// How a blob came to be at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobOutcome {
    /// It was there.
    Present,
    /// The target took it from another of its repositories.
    Mounted,
    Sent,
}

pub(super) async fn transfer(
    source: &Endpoint,
    target: &Endpoint,
    blob: &Descriptor,
    progress: &Arc<dyn Progress>,
) -> Result<BlobOutcome, Error> {
    let present = target
        .registry
        .stat_blob(&target.repository, &blob.digest)
        .await?;
    if present.is_some() {
        return Ok(BlobOutcome::Present);
    }
    let mountable = target.registry.is_same(&source.registry) && target.repository != source.repository;
    let from = mountable.then_some(&source.repository);
    let reader = Reader {
        source,
        blob,
        progress,
    };
    let mounted = target
        .registry
        .push_or_mount(&target.repository, &blob.digest, blob.size, &reader, from)
        .await?;
    Ok(if mounted {
        BlobOutcome::Mounted
    } else {
        BlobOutcome::Sent
    })
}

/// Reads the source while telling how far it is.
struct Reader<'a> {
    source: &'a Endpoint,
    blob: &'a Descriptor,
    progress: &'a Arc<dyn Progress>,
}

#[async_trait]
impl BlobSource for Reader<'_> {
    async fn open(&self, offset: u64) -> Result<ByteStream, Error> {
        let (registry, repository) = (&self.source.registry, &self.source.repository);
        let stream = match offset {
            0 => registry.open_blob(repository, self.blob).await?,
            _ => registry.open_blob_at(repository, self.blob, offset).await?,
        };
        let (blob, progress) = (self.blob.clone(), Arc::clone(self.progress));
        Ok(Box::pin(stream.inspect_ok(move |piece| {
            progress.blob_bytes(&blob, piece.len() as u64);
        })))
    }
}
