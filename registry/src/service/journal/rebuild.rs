//! The database anew: the store's objects, the last snapshot, the segments since. Offline.

use std::sync::Arc;

use futures::TryStreamExt;
use oci::{Algorithm, Digest, Hasher, Manifest};

use super::format;
use super::format::{Entry, Record};
use super::names::{Names, last_event_of};
use crate::metadata::JournalPosition;
use crate::service::{PushManifest, Registry, Result};
use crate::storage::ObjectName;

/// What a rebuild found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rebuilt {
    pub(crate) blobs: u64,
    pub(crate) pushes: u64,
    pub(crate) deletions: u64,
}

const BATCH: usize = 500;

/// Brings `registry`'s database up to what its store knows. Events that the database has already are left out.
pub(crate) async fn rebuild(registry: &Arc<Registry>) -> Result<Rebuilt> {
    let mut done = Rebuilt::default();
    let before = registry.metadata.journal_position().await?;
    add_objects(registry).await?;
    let names = Names::list(&*registry.store).await?;
    for name in names.to_replay(before.head) {
        // A database that was kept has what came before its own last event.
        if last_event_of(name).is_some_and(|last| last <= before.last_event) {
            continue;
        }
        let data = registry.store.get_file(name).await?.unwrap_or_default();
        for record in format::read(&data)? {
            // A snapshot's lines have no numbers.
            if record.event > before.last_event || record.event == 0 {
                replay(registry, record, &mut done).await?;
            }
        }
    }
    let journal = names.position();
    let position = JournalPosition {
        head: journal.head.max(before.head),
        last_event: journal.last_event.max(before.last_event),
    };
    done.blobs = registry.metadata.finish_rebuild(position).await?;
    Ok(done)
}

async fn add_objects(registry: &Registry) -> Result<()> {
    let mut after: Option<ObjectName> = None;
    loop {
        let page = registry.store.list(after.as_ref()).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        for keys in page.chunks(BATCH) {
            let mut found = Vec::new();
            for key in registry.metadata.unknown_objects(keys).await? {
                let (digest, size) = identify(registry, &key).await?;
                found.push((digest, size, key));
            }
            registry.metadata.add_blobs(found).await?;
        }
    }
}

/// Which blob an object is: by its name, where that has the digest; else by its bytes.
async fn identify(registry: &Registry, key: &ObjectName) -> Result<(Digest, u64)> {
    let size = registry.store.size(key).await?;
    if let Some(digest) = digest_in(key) {
        return Ok((digest, size));
    }
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut stream = registry.store.read(key, 0..size).await?;
    while let Some(piece) = stream.try_next().await? {
        hasher.update(&piece);
    }
    Ok((hasher.finish(), size))
}

/// `blobs/<algorithm>/<ab>/<hex>.<generation>`
fn digest_in(key: &ObjectName) -> Option<Digest> {
    let mut parts = key.as_str().strip_prefix("blobs/")?.split('/');
    let algorithm = parts.next()?;
    let (hex, _) = parts.next_back()?.split_once('.')?;
    format!("{algorithm}:{hex}").parse().ok()
}

async fn replay(registry: &Arc<Registry>, record: Record, done: &mut Rebuilt) -> Result<()> {
    let repository = record.repository;
    match record.entry {
        Entry::Push {
            digest,
            media_type,
            tags,
            actor,
            payload,
        } => {
            let bytes = format::payload(&payload)?;
            let manifest = Manifest::parse(Some(&media_type), bytes.to_vec())?;
            let mut blobs: Vec<Digest> = manifest.blobs().map(|blob| blob.digest).collect();
            // An index may list blobs.
            blobs.extend(manifest.children().iter().map(|child| child.digest));
            registry.metadata.link_blobs(&repository, &blobs).await?;
            registry
                .replay_manifest(PushManifest {
                    repository,
                    actor,
                    origin: Default::default(),
                    content_type: Some(media_type),
                    bytes,
                    digest: Some(digest),
                    tags,
                    sparse: true,
                })
                .await?;
            done.pushes += 1;
        }
        Entry::Delete { digest, actor } => {
            registry
                .metadata
                .delete_manifest(&repository, &digest, &[], &actor)
                .await?;
            done.deletions += 1;
        }
        Entry::Untag { tag, actor } => {
            registry.metadata.delete_tag(&repository, &tag, &actor).await?;
            done.deletions += 1;
        }
    }
    Ok(())
}
