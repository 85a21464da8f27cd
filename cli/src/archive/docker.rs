//! The archives of `docker save` without a layout in them.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail, ensure};
use builder::layer::{Compressors, LayerError, upload};
use builder::services::ImageSink as _;
use client::{FileSource, Registry};
use oci::{Descriptor, Digest, ImageConfig, media_type};
use serde::Deserialize;
use serde_json::json;

use super::compressed::decompress;
use super::load::{Target, target_of};
use super::store::{self, Store};
use crate::failure::Usage;
use crate::progress::Transfer;
use crate::sink::Sink;

/// One image of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

pub(crate) async fn load(
    store: &Store,
    registry: &Registry,
    name: Option<Target>,
) -> anyhow::Result<Vec<(Target, Digest)>> {
    let list = store.read("manifest.json")?.unwrap_or_default();
    let entries: Vec<Entry> = serde_json::from_slice(&list).context("the archive's manifest.json")?;
    if name.is_some() && entries.len() != 1 {
        return Err(Usage(format!(
            "--name is for one image, but the archive has {}",
            entries.len()
        ))
        .into());
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let compressors = Arc::new(Compressors::start(threads).context("cannot start the compressors")?);
    let mut loaded = Vec::new();
    for entry in entries {
        let targets = match &name {
            Some(target) => vec![target.clone()],
            None => entry
                .repo_tags
                .iter()
                .flatten()
                .map(|tag| target_of(tag))
                .collect::<Result<_, _>>()?,
        };
        let Some(first) = targets.first() else {
            bail!("an image of the archive has no name: give it one with --name NAME");
        };
        let sink = Sink {
            registry: registry.clone(),
            repository: first.repository.clone(),
        };
        let manifest = push(store, &entry, &sink, &compressors).await?;
        let digest = Digest::sha256(&manifest);
        for target in targets {
            let body = manifest.clone().into();
            sink.tag(&target.repository, &target.tag, media_type::DOCKER_MANIFEST, body)
                .await?;
            loaded.push((target, digest));
        }
    }
    Ok(loaded)
}

/// Pushes an image's layers and configuration, and returns its manifest.
async fn push(
    store: &Store,
    entry: &Entry,
    sink: &Sink,
    compressors: &Arc<Compressors>,
) -> anyhow::Result<Vec<u8>> {
    let config = store
        .read(&entry.config)?
        .ok_or_else(|| anyhow!("the archive has no {}", entry.config))?;
    let image = ImageConfig::parse(&config).with_context(|| format!("the archive's {}", entry.config))?;
    let diff_ids = &image.rootfs.diff_ids;
    ensure!(
        diff_ids.len() == entry.layers.len(),
        "the image has {} layers, but its configuration names {}",
        entry.layers.len(),
        diff_ids.len()
    );
    let mut pushed: HashMap<Digest, Descriptor> = HashMap::new();
    let mut layers = Vec::new();
    for (file, diff_id) in entry.layers.iter().zip(diff_ids) {
        if !pushed.contains_key(diff_id) {
            let layer = push_layer(store.expect(file)?, diff_id, sink, compressors).await;
            pushed.insert(
                *diff_id,
                layer.with_context(|| format!("the archive's layer {file}"))?,
            );
        }
        layers.push(pushed[diff_id].clone());
    }
    let (digest, size) = (Digest::sha256(&config), config.len());
    sink.put_blob(&digest, config.into()).await?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::DOCKER_MANIFEST,
        "config": {"mediaType": media_type::DOCKER_CONFIG, "digest": digest, "size": size},
        "layers": layers,
    });
    Ok(serde_json::to_vec(&manifest)?)
}

async fn push_layer(
    source: FileSource,
    expected: &Digest,
    sink: &Sink,
    compressors: &Arc<Compressors>,
) -> anyhow::Result<Descriptor> {
    let bar = Transfer::start(&format!("loading {}", expected.short()), None, true);
    let input = store::open(&source)?;
    let progress = bar.clone();
    let sent = Box::pin(upload(sink, compressors, move |out| {
        let failed = |source: std::io::Error| LayerError::Input {
            source: Box::new(source),
        };
        let copied = std::io::copy(&mut decompress(input).map_err(failed)?, out).map_err(failed)?;
        progress.add(copied);
        Ok(())
    }))
    .await;
    bar.finish();
    let (layer, ()) = sent?;
    ensure!(
        layer.diff_id == *expected,
        "it is damaged: its digest is {}, the image's configuration says {expected}",
        layer.diff_id
    );
    let mut descriptor = layer.descriptor;
    media_type::DOCKER_LAYER_GZIP.clone_into(&mut descriptor.media_type);
    Ok(descriptor)
}
