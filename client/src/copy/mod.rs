//! Copies images between registries, byte for byte: blobs first, then manifests, children before their index, the tag
//! last.

mod blobs;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use oci::{Descriptor, Digest, Platform, Reference, RepoName};

use crate::error::{Error, Place};
use crate::registry::{FetchedManifest, Registry};
pub use blobs::BlobOutcome;

/// Blobs on their way at once.
const PARALLEL_BLOBS: usize = 4;
/// Manifests that one copy may touch, so that indexes of indexes end.
const MANIFESTS_MAX: usize = 10_000;

/// An image's place in a registry.
#[derive(Clone)]
pub struct Endpoint {
    pub registry: Registry,
    pub repository: RepoName,
    pub reference: Reference,
}

#[derive(Clone, Debug, Default)]
pub struct CopyOptions {
    /// Of an index only the image for this platform, which then stands for itself.
    pub platform: Option<Platform>,
    /// Also what refers to the image: signatures, SBOMs.
    pub referrers: bool,
}

/// Hears what a copy does. Calls come from many tasks.
pub trait Progress: Send + Sync {
    /// A blob is looked at; what becomes of it comes with [`Progress::blob_done`].
    fn blob_started(&self, blob: &Descriptor);
    fn blob_bytes(&self, blob: &Descriptor, bytes: u64);
    fn blob_done(&self, blob: &Descriptor, outcome: BlobOutcome);
    fn manifest_done(&self, manifest: &Descriptor);
}

/// Nobody listens.
pub struct Silent;

/// What a copy did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    pub digest: Digest,
    pub manifests: usize,
    pub blobs_sent: usize,
    pub blobs_mounted: usize,
    pub blobs_present: usize,
    pub bytes_sent: u64,
}

/// Copies the image or index at `source` to `target`, whose reference must be a tag or the image's own digest.
pub async fn copy(
    source: &Endpoint,
    target: &Endpoint,
    options: &CopyOptions,
    progress: &Arc<dyn Progress>,
) -> Result<Copied, Error> {
    let root = root(source, options.platform.as_ref()).await?;
    if let Reference::Digest(wanted) = &target.reference
        && *wanted != root.digest
    {
        return Err(Error::DigestMismatch {
            place: target.place(),
            expected: Box::new(*wanted),
            actual: Box::new(root.digest),
        });
    }
    let mut job = Job {
        source,
        target,
        progress,
        seen: HashSet::new(),
        done: Copied {
            digest: root.digest,
            manifests: 0,
            blobs_sent: 0,
            blobs_mounted: 0,
            blobs_present: 0,
            bytes_sent: 0,
        },
    };
    let mut referred = VecDeque::from([root.digest]);
    job.tree(root, Some(&target.reference)).await?;
    while let Some(subject) = referred.pop_front().filter(|_| options.referrers) {
        for referrer in source.registry.referrers(&source.repository, &subject).await? {
            let reference = Reference::Digest(referrer.digest);
            let fetched = source.registry.manifest(&source.repository, &reference).await?;
            referred.push_back(fetched.digest);
            job.tree(fetched, None).await?;
        }
    }
    Ok(job.done)
}

async fn root(source: &Endpoint, platform: Option<&Platform>) -> Result<FetchedManifest, Error> {
    match platform {
        Some(platform) => {
            let found = source
                .registry
                .platform_manifest(&source.repository, &source.reference, platform);
            found.await
        }
        None => {
            source
                .registry
                .manifest(&source.repository, &source.reference)
                .await
        }
    }
}

/// What is left to do, the next last.
enum Step {
    /// Fetch it and see what it lists.
    Visit(Digest),
    /// All it lists is stored.
    Store(Box<FetchedManifest>),
}

fn expand(fetched: FetchedManifest) -> Vec<Step> {
    let children: Vec<Step> = fetched
        .manifest
        .children()
        .iter()
        .rev()
        .map(|child| Step::Visit(child.digest))
        .collect();
    let mut steps = vec![Step::Store(Box::new(fetched))];
    steps.extend(children);
    steps
}

struct Job<'a> {
    source: &'a Endpoint,
    target: &'a Endpoint,
    progress: &'a Arc<dyn Progress>,
    /// Blobs and manifests that are at the target.
    seen: HashSet<Digest>,
    done: Copied,
}

impl Job<'_> {
    /// Copies a manifest with all below it, and stores it under `name` or its digest. What an index lists is stored
    /// before the index.
    async fn tree(&mut self, root: FetchedManifest, name: Option<&Reference>) -> Result<(), Error> {
        let root_digest = root.digest;
        let mut steps = expand(root);
        while let Some(step) = steps.pop() {
            if self.done.manifests > MANIFESTS_MAX {
                return Err(Error::Protocol {
                    place: self.source.place(),
                    detail: format!("it lists more than {MANIFESTS_MAX} manifests"),
                });
            }
            match step {
                Step::Visit(digest) if self.seen.contains(&digest) => {}
                Step::Visit(digest) => {
                    let (registry, repository) = (&self.source.registry, &self.source.repository);
                    let fetched = registry.manifest(repository, &Reference::Digest(digest)).await?;
                    steps.extend(expand(fetched));
                }
                Step::Store(fetched) => {
                    self.blobs(&fetched).await?;
                    let own = Reference::Digest(fetched.digest);
                    let named = name.filter(|_| fetched.digest == root_digest);
                    self.store(&fetched, named.unwrap_or(&own)).await?;
                }
            }
        }
        Ok(())
    }

    async fn blobs(&mut self, image: &FetchedManifest) -> Result<(), Error> {
        let mut wanted: Vec<&Descriptor> = Vec::new();
        for blob in image.manifest.blobs() {
            if self.seen.insert(blob.digest) {
                wanted.push(blob);
            }
        }
        let (source, target, progress) = (self.source, self.target, self.progress);
        let mut transfers = futures::stream::iter(wanted)
            .map(|blob| async move {
                progress.blob_started(blob);
                let outcome = blobs::transfer(source, target, blob, progress).await?;
                progress.blob_done(blob, outcome);
                Ok::<_, Error>((blob.size, outcome))
            })
            .buffer_unordered(PARALLEL_BLOBS);
        while let Some((size, outcome)) = transfers.try_next().await? {
            match outcome {
                BlobOutcome::Present => self.done.blobs_present += 1,
                BlobOutcome::Mounted => self.done.blobs_mounted += 1,
                BlobOutcome::Sent => {
                    self.done.blobs_sent += 1;
                    self.done.bytes_sent += size;
                }
            }
        }
        Ok(())
    }

    async fn store(&mut self, fetched: &FetchedManifest, reference: &Reference) -> Result<(), Error> {
        let bytes = fetched.manifest.bytes().to_vec().into();
        let media_type = &fetched.manifest.media_type;
        self.target
            .registry
            .put_manifest(&self.target.repository, reference, media_type, bytes)
            .await?;
        self.seen.insert(fetched.digest);
        self.done.manifests += 1;
        self.progress.manifest_done(&fetched.descriptor());
        Ok(())
    }
}

impl Endpoint {
    fn place(&self) -> Place {
        let what = crate::registry::manifest_name(&self.repository, &self.reference);
        Place::new(self.registry.host(), what)
    }
}

impl Progress for Silent {
    fn blob_started(&self, _blob: &Descriptor) {}
    fn blob_bytes(&self, _blob: &Descriptor, _bytes: u64) {}
    fn blob_done(&self, _blob: &Descriptor, _outcome: BlobOutcome) {}
    fn manifest_done(&self, _manifest: &Descriptor) {}
}
