//! The planner's loop: fetches what it asks for until the plan stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::try_join_all;
use oci::{ImageConfig, Manifest, Platform};

use super::error::BuildError;
use super::input::{BuildInput, Services};
use super::state::{LAYER_TIME_ANNOTATION, LayerInfo};
use crate::plan::{Facts, ImageNeed, Plan, PlanInput, Planner, Progress};
use crate::services::ResolvedImage;

/// A base as the registry has it.
#[derive(Clone, Debug)]
pub(super) struct BaseImage {
    pub(super) digest: oci::Digest,
    pub(super) config: ImageConfig,
    pub(super) layers: Vec<Arc<LayerInfo>>,
}

pub(super) type BaseImages = BTreeMap<(String, Platform), BaseImage>;

/// Plans the build and resolves every image it is made from.
pub(super) async fn plan(input: &BuildInput, services: &Services) -> Result<(Plan, BaseImages), BuildError> {
    let planner = Planner::new(PlanInput {
        file_name: input.dockerfile.name.clone(),
        text: input.dockerfile.text.clone(),
        target: input.target.clone(),
        build_args: input.build_args.clone(),
        platform: input.platform.clone(),
        build_platform: Platform::host(),
    })
    .map_err(dockerfile_error)?;
    let mut facts = Facts::new();
    let mut images = BaseImages::new();
    loop {
        match planner.step(&facts).map_err(dockerfile_error)? {
            Progress::Done(plan) => return Ok((*plan, images)),
            Progress::Need(needs) => {
                for (need, image) in
                    try_join_all(needs.into_iter().map(|need| resolve(input, services, need))).await?
                {
                    let key = (need.reference, need.platform);
                    facts.insert(key.clone(), image.config.clone());
                    images.insert(key, image);
                }
            }
        }
    }
}

async fn resolve(
    input: &BuildInput,
    services: &Services,
    need: ImageNeed,
) -> Result<(ImageNeed, BaseImage), BuildError> {
    let resolved = services
        .images
        .resolve(&need.reference, &need.platform)
        .await
        .map_err(|source| BuildError::Image {
            file: input.dockerfile.name.clone(),
            line: need.span.line,
            reference: need.reference.clone(),
            hint: need
                .hint
                .clone()
                .map(|hint| format!("\n  help: {hint}"))
                .unwrap_or_default(),
            source,
        })?;
    let image = read_image(&resolved).map_err(|reason| BuildError::MalformedImage {
        file: input.dockerfile.name.clone(),
        line: need.span.line,
        reference: need.reference.clone(),
        reason,
    })?;
    Ok((need, image))
}

fn read_image(resolved: &ResolvedImage) -> Result<BaseImage, String> {
    let config =
        ImageConfig::parse(&resolved.config).map_err(|error| format!("its configuration: {error}"))?;
    let manifest = Manifest::parse(Some(&resolved.media_type), resolved.manifest.to_vec())
        .map_err(|error| format!("its manifest: {error}"))?;
    let (layers, diff_ids) = (manifest.layers(), &config.rootfs.diff_ids);
    if layers.len() != diff_ids.len() {
        let (layers, diff_ids) = (layers.len(), diff_ids.len());
        return Err(format!(
            "its manifest has {layers} layers, its configuration {diff_ids} diff ids"
        ));
    }
    let layers = layers.iter().zip(diff_ids).map(|(layer, diff_id)| {
        let time = layer
            .annotations
            .get(LAYER_TIME_ANNOTATION)
            .and_then(|text| text.parse().ok());
        Arc::new(LayerInfo {
            repository: resolved.repository.clone(),
            descriptor: layer.clone(),
            diff_id: *diff_id,
            time,
        })
    });
    Ok(BaseImage {
        digest: resolved.digest,
        layers: layers.collect(),
        config,
    })
}

fn dockerfile_error(errors: crate::dockerfile::Diagnostics) -> BuildError {
    let line = errors.0.first().map(|error| error.span.line);
    BuildError::Dockerfile {
        message: errors.to_string(),
        line,
    }
}
