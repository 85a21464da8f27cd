//! `layeryard save`: an image as an archive, streamed without a copy on disk.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context as _, bail};
use client::copy::Endpoint;
use client::{FetchedManifest, into_reader};
use oci::{Descriptor, Digest, Platform, Reference, media_type};
use serde_json::json;
use tar::{EntryType, Header};
use tokio_util::io::SyncIoBridge;

use super::layout::{REF_NAME, blob_name};
use crate::args::{ArchiveFormat, SaveArgs};
use crate::failure::Usage;
use crate::names;
use crate::progress::Transfer;
use crate::server::ServerUrl;

pub(crate) async fn run(args: SaveArgs) -> anyhow::Result<()> {
    let server: ServerUrl = args.server.server.parse()?;
    let place = names::locate(&args.name, &server, false).await?;
    let platform = args.platform.as_deref().map(names::platform).transpose()?;
    let to_stdout = args.output == Path::new("-");
    if to_stdout && io::IsTerminal::is_terminal(&io::stdout()) {
        return Err(Usage("standard output is a terminal: name a file with -o FILE".into()).into());
    }
    let wanted = match args.format {
        ArchiveFormat::DockerArchive => Some(platform.unwrap_or_else(Platform::host)),
        ArchiveFormat::Oci => platform,
    };
    let images = server.explain(collect(&place, wanted.as_ref()).await)?;
    let out: Box<dyn Write + Send> = if to_stdout {
        Box::new(io::stdout())
    } else {
        let file =
            File::create(&args.output).with_context(|| format!("cannot write {}", args.output.display()))?;
        Box::new(file)
    };
    let archive = Archive {
        place,
        out: Some(tar::Builder::new(out)),
        written: HashSet::new(),
    };
    let saved = match args.format {
        ArchiveFormat::DockerArchive => Box::pin(archive.docker(&images)).await,
        ArchiveFormat::Oci => Box::pin(archive.layout(&images)).await,
    };
    if saved.is_err() && !to_stdout {
        // Half an archive must not be taken for one; that it can't be removed changes nothing about the error.
        drop(std::fs::remove_file(&args.output));
    }
    saved
}

/// The manifest of a name and all that it lists, children first. A platform takes one image out of an index.
async fn collect(place: &Endpoint, platform: Option<&Platform>) -> anyhow::Result<Vec<FetchedManifest>> {
    let (registry, repository) = (&place.registry, &place.repository);
    if let Some(platform) = platform {
        return Ok(vec![
            registry
                .platform_manifest(repository, &place.reference, platform)
                .await?,
        ]);
    }
    let root = registry.manifest(repository, &place.reference).await?;
    let mut all = Vec::new();
    let mut seen = HashSet::new();
    let mut waiting = vec![root];
    while let Some(manifest) = waiting.pop() {
        for child in manifest.manifest.children() {
            if seen.insert(child.digest) {
                waiting.push(
                    registry
                        .manifest(repository, &Reference::Digest(child.digest))
                        .await?,
                );
            }
        }
        all.push(manifest);
    }
    all.reverse();
    Ok(all)
}

type Tar = tar::Builder<Box<dyn Write + Send>>;

struct Archive {
    place: Endpoint,
    /// Taken while a blocking thread writes.
    out: Option<Tar>,
    written: HashSet<Digest>,
}

impl Archive {
    /// What `docker load` reads. Layers stay compressed: every engine accepts that, and nothing need be spooled.
    async fn docker(mut self, images: &[FetchedManifest]) -> anyhow::Result<()> {
        let Some(image) = images.first() else {
            bail!("there is no image to save")
        };
        let Some(config) = image.manifest.config() else {
            bail!("an index has no layers to save")
        };
        if let Some(layer) = image
            .manifest
            .layers()
            .iter()
            .find(|layer| layer.media_type.ends_with("zstd"))
        {
            bail!(
                "layer {} is compressed with zstd, which `docker load` may not read: use --format oci",
                layer.digest
            );
        }
        self.blob(config).await?;
        for layer in image.manifest.layers() {
            self.blob(layer).await?;
        }
        let tag = match &self.place.reference {
            Reference::Tag(tag) => vec![format!("{}:{tag}", self.place.repository)],
            Reference::Digest(_) => Vec::new(),
        };
        let layers: Vec<String> = image
            .manifest
            .layers()
            .iter()
            .map(|layer| blob_name(&layer.digest))
            .collect();
        let list = json!([{"Config": blob_name(&config.digest), "RepoTags": tag, "Layers": layers}]);
        self.file("manifest.json", serde_json::to_vec(&list)?).await?;
        self.finish().await
    }

    async fn layout(mut self, images: &[FetchedManifest]) -> anyhow::Result<()> {
        let Some(root) = images.last() else {
            bail!("there is no image to save")
        };
        self.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())
            .await?;
        for image in images {
            for blob in image.manifest.blobs() {
                self.blob(blob).await?;
            }
            self.file(&blob_name(&image.digest), image.manifest.bytes().to_vec())
                .await?;
        }
        let mut descriptor = Descriptor::new(
            root.manifest.media_type.clone(),
            root.digest,
            root.manifest.size(),
        );
        if let Reference::Tag(tag) = &self.place.reference {
            let name = format!("{}:{tag}", self.place.repository);
            descriptor.annotations.insert(REF_NAME.to_owned(), name);
        }
        let index =
            json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [descriptor]});
        self.file("index.json", serde_json::to_vec(&index)?).await?;
        self.finish().await
    }

    /// Streams a blob into the archive, once.
    async fn blob(&mut self, blob: &Descriptor) -> anyhow::Result<()> {
        if !self.written.insert(blob.digest) {
            return Ok(());
        }
        let stream = self
            .place
            .registry
            .open_blob(&self.place.repository, blob)
            .await?;
        let bar = Transfer::start(&format!("saving {}", blob.digest.short()), Some(blob.size), true);
        let reader = SyncIoBridge::new(into_reader(stream));
        let (name, size, progress) = (blob_name(&blob.digest), blob.size, bar.clone());
        let written = self
            .write(move |out| {
                append(
                    out,
                    &name,
                    size,
                    Progress {
                        inner: reader,
                        bar: progress,
                    },
                )
            })
            .await;
        bar.finish();
        written.with_context(|| format!("cannot save {}", blob.digest))
    }

    async fn file(&mut self, name: &str, data: Vec<u8>) -> anyhow::Result<()> {
        let name = name.to_owned();
        self.write(move |out| append(out, &name, data.len() as u64, data.as_slice()))
            .await
    }

    async fn finish(mut self) -> anyhow::Result<()> {
        self.write(|out| out.finish().and_then(|()| out.get_mut().flush()))
            .await
    }

    /// Writes on a blocking thread: the archive may be a slow disk or a pipe.
    async fn write(
        &mut self,
        job: impl FnOnce(&mut Tar) -> io::Result<()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let mut out = self
            .out
            .take()
            .context("the archive was given up after an error")?;
        let (out, written) = tokio::task::spawn_blocking(move || {
            let written = job(&mut out);
            (out, written)
        })
        .await
        .context("the writer of the archive ended badly")?;
        written.context("cannot write the archive")?;
        self.out = Some(out);
        Ok(())
    }
}

/// The same image always makes the same archive: no time, no owner.
fn append(out: &mut Tar, name: &str, size: u64, data: impl io::Read) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_size(size);
    out.append_data(&mut header, name, data)
}

struct Progress<R> {
    inner: R,
    bar: Transfer,
}

impl<R: io::Read> io::Read for Progress<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bar.add(count as u64);
        Ok(count)
    }
}
