//! `layeryard inspect`.

use client::FetchedManifest;
use client::copy::Endpoint;
use oci::{Platform, Reference};
use serde_json::{Map, Value, json};

use crate::args::InspectArgs;
use crate::names;
use crate::output;
use crate::server::ServerUrl;

/// The largest configuration that is shown; of other artifacts the config may be anything.
const CONFIG_BYTES_MAX: u64 = 8 << 20;

pub(crate) async fn run(args: InspectArgs) -> anyhow::Result<()> {
    let server: ServerUrl = args.server.server.parse()?;
    let wanted = args.platform.as_deref().map(names::platform).transpose()?;
    let place = names::locate(&args.name, &server, false).await?;
    let found = match (&wanted, args.raw) {
        // Bytes are asked for: of the image if its platform is named, else of what the name stands for.
        (Some(platform), true) => {
            place
                .registry
                .platform_manifest(&place.repository, &place.reference, platform)
                .await
        }
        _ => place.registry.manifest(&place.repository, &place.reference).await,
    };
    let found = server.explain(found)?;
    if args.raw {
        return Ok(output::bytes(found.manifest.bytes())?);
    }
    let shown = describe(&place, found, wanted).await?;
    Ok(output::line(serde_json::to_string_pretty(&shown)?)?)
}

async fn describe(
    place: &Endpoint,
    found: FetchedManifest,
    wanted: Option<Platform>,
) -> anyhow::Result<Value> {
    let mut shown = Map::new();
    shown.insert("name".into(), json!(names::display(place)));
    shown.insert("digest".into(), json!(found.digest));
    shown.insert("mediaType".into(), json!(found.manifest.media_type));
    let image = if found.manifest.is_index() {
        shown.insert("index".into(), serde_json::from_slice(found.manifest.bytes())?);
        image_of(place, &found, wanted).await?
    } else {
        Some(found)
    };
    let Some(image) = image else {
        return Ok(shown.into());
    };
    shown.insert("manifestDigest".into(), json!(image.digest));
    shown.insert("manifest".into(), serde_json::from_slice(image.manifest.bytes())?);
    if let Some(config) = image.manifest.config()
        && config.size <= CONFIG_BYTES_MAX
    {
        let bytes = place
            .registry
            .read_blob(&place.repository, config, CONFIG_BYTES_MAX)
            .await?;
        // An artifact's config need not be JSON.
        if let Ok(config) = serde_json::from_slice::<Value>(&bytes) {
            shown.insert("config".into(), config);
        }
    }
    Ok(shown.into())
}

/// The image that an index has for a platform; an index may have none for this machine.
async fn image_of(
    place: &Endpoint,
    index: &FetchedManifest,
    wanted: Option<Platform>,
) -> anyhow::Result<Option<FetchedManifest>> {
    let reference = Reference::Digest(index.digest);
    let platform = wanted.clone().unwrap_or_else(Platform::host);
    match place
        .registry
        .platform_manifest(&place.repository, &reference, &platform)
        .await
    {
        Ok(image) => Ok(Some(image)),
        Err(client::Error::NoPlatform { .. }) if wanted.is_none() => Ok(None),
        Err(error) => Err(error.into()),
    }
}
