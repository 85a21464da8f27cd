//! The finished stage as an image: configuration, manifest, names.

use std::sync::Arc;

use bytes::Bytes;
use oci::media_type::{
    DOCKER_LAYER_GZIP, DOCKER_LAYER_TAR, OCI_CONFIG, OCI_LAYER_GZIP, OCI_LAYER_TAR, OCI_MANIFEST,
};
use oci::{Descriptor, Digest, ImageConfig, RootFs};
use serde::Serialize;
use tokio::io::AsyncReadExt;

use super::Build;
use super::error::BuildError;
use super::input::BuildOutput;
use super::state::{LayerInfo, StageState};
use super::step::with_time;
use crate::event::Event;
use crate::layer::rfc3339;
use crate::plan::Stage;
use crate::services::ServiceError;

/// What Docker wrote about the container that made a base: nothing of the image made on it.
const STALE_FIELDS: [&str; 2] = ["container", "container_config"];
/// What Docker's overlay driver mounts at most.
const DOCKER_LAYERS_MAX: usize = 125;
const COPY_CHUNK_BYTES: usize = 1 << 20;

/// Fields in the order in which they are serialised: that order is part of the manifest's digest.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ImageManifest {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

impl Build<'_> {
    /// Puts the image into the registry: blobs, configuration, manifest, then the names.
    pub(super) async fn publish(&self, stage: &Stage, state: &StageState) -> Result<BuildOutput, BuildError> {
        let mut layers = Vec::with_capacity(state.layers.len());
        for layer in &state.layers {
            let info = layer.info.get().await?;
            self.take_over(&info).await?;
            layers.push(info);
        }
        if layers.len() > DOCKER_LAYERS_MAX {
            let count = layers.len();
            let message =
                format!("the image has {count} layers; Docker can't run more than {DOCKER_LAYERS_MAX}");
            self.services.events.emit(Event::Warning {
                message,
                line: None,
                code: None,
            });
        }
        let config = self.config(stage, state, &layers);
        let config = config.to_json().map_err(|source| BuildError::Serialise {
            what: "configuration",
            source,
        })?;
        let config_digest = Digest::sha256(&config);
        let manifest = ImageManifest {
            schema_version: 2,
            media_type: OCI_MANIFEST,
            config: Descriptor::new(OCI_CONFIG, config_digest, config.len() as u64),
            layers: layers
                .iter()
                .map(|info| with_time(oci_descriptor(&info.descriptor), info.time))
                .collect(),
        };
        let manifest = serde_json::to_vec(&manifest).map_err(|source| BuildError::Serialise {
            what: "manifest",
            source,
        })?;
        let sink = &self.services.sink;
        let sent = sink.put_blob(&config_digest, config.into()).await;
        sent.map_err(|source| BuildError::Service {
            action: "store the image's configuration",
            source,
        })?;
        self.check_stopped()?;
        self.put_manifest(manifest.into()).await
    }

    async fn put_manifest(&self, manifest: Bytes) -> Result<BuildOutput, BuildError> {
        let sink = &self.services.sink;
        let digest = sink
            .put_manifest(OCI_MANIFEST, manifest.clone())
            .await
            .map_err(|source| BuildError::Service {
                action: "store the image's manifest",
                source,
            })?;
        let mut names = Vec::new();
        for (repository, tag) in &self.input.tags {
            sink.tag(repository, tag, OCI_MANIFEST, manifest.clone())
                .await
                .map_err(|source| BuildError::Service {
                    action: "tag the image",
                    source,
                })?;
            names.push(format!("{repository}:{tag}"));
        }
        if names.is_empty() {
            names.push(format!("{}@{digest}", self.input.repository));
        }
        Ok(BuildOutput {
            digest,
            manifest_size: manifest.len() as u64,
            names,
        })
    }

    fn config(&self, stage: &Stage, state: &StageState, layers: &[Arc<LayerInfo>]) -> ImageConfig {
        let mut config = state.image.clone();
        config.created = Some(rfc3339(self.plan.source_date_epoch.unwrap_or(state.epoch)));
        config.author = stage.author.clone().or(config.author);
        config.config = stage.config.clone();
        config.rootfs = RootFs {
            diff_ids: layers.iter().map(|info| info.diff_id).collect(),
            ..RootFs::default()
        };
        config.history.extend(state.history.iter().cloned());
        for field in STALE_FIELDS {
            config.rest.shift_remove(field);
        }
        config
    }

    /// Makes a layer of another repository this one's: by reference, else by its bytes.
    async fn take_over(&self, info: &LayerInfo) -> Result<(), BuildError> {
        let sink = &self.services.sink;
        let digest = &info.descriptor.digest;
        if info.repository == self.input.repository {
            return Ok(());
        }
        let failed = |source| BuildError::Service {
            action: "take over a layer of the base",
            source,
        };
        if sink.mount(&info.repository, digest).await.map_err(failed)?
            || sink.has_blob(digest).await.map_err(failed)?
        {
            return Ok(());
        }
        self.copy_blob(info).await.map_err(failed)
    }

    async fn copy_blob(&self, info: &LayerInfo) -> Result<(), ServiceError> {
        let mut source = self
            .services
            .images
            .open(&info.repository, &info.descriptor, 0)
            .await?;
        let mut upload = self.services.sink.start_upload().await?;
        loop {
            let mut chunk = bytes::BytesMut::with_capacity(COPY_CHUNK_BYTES);
            let read = source
                .read_buf(&mut chunk)
                .await
                .map_err(ServiceError::from_error)?;
            if read == 0 {
                return upload.finish(&info.descriptor.digest).await;
            }
            upload.write(chunk.freeze()).await?;
        }
    }
}

/// An OCI manifest lists OCI types; Docker's name the same formats.
fn oci_descriptor(descriptor: &Descriptor) -> Descriptor {
    let media_type = match descriptor.media_type.as_str() {
        DOCKER_LAYER_GZIP => OCI_LAYER_GZIP,
        DOCKER_LAYER_TAR => OCI_LAYER_TAR,
        other => other,
    };
    Descriptor {
        media_type: media_type.to_owned(),
        ..descriptor.clone()
    }
}
