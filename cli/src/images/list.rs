//! `layeryard images`.

use bytesize::ByteSize;
use client::Registry;
use futures::{StreamExt as _, TryStreamExt as _};
use oci::{Digest, ImageConfig, Platform, Reference, RepoName, Tag};
use serde::Serialize;

use crate::args::{ImagesArgs, ListFormat};
use crate::names;
use crate::output;
use crate::server::ServerUrl;

/// Tags that are looked at at once.
const PARALLEL_TAGS: usize = 8;

const CONFIG_BYTES_MAX: u64 = 8 << 20;

/// One line of the list.
#[derive(Serialize)]
struct Row {
    repository: RepoName,
    tag: Tag,
    digest: Digest,
    /// Bytes to pull: configuration and compressed layers. None: an index without an image for this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    platforms: Vec<String>,
}

pub(crate) async fn run(args: ImagesArgs) -> anyhow::Result<()> {
    let server: ServerUrl = args.server.server.parse()?;
    let registry = server.registry().await?;
    let repositories = match &args.repository {
        Some(name) => vec![names::own_repository(name, &server)?],
        None => server.explain(registry.catalog().await)?,
    };
    if args.format == ListFormat::Table {
        output::line(columns("REPOSITORY", "TAG", "DIGEST", "CREATED", "SIZE"))?;
    }
    for repository in repositories {
        let tags = server.explain(registry.tags(&repository).await)?;
        let mut rows = futures::stream::iter(tags)
            .map(|tag| row(&registry, &repository, tag))
            .buffered(PARALLEL_TAGS);
        while let Some(row) = rows.try_next().await? {
            // A tag may be deleted while the list is made.
            if let Some(row) = row {
                output::line(match args.format {
                    ListFormat::Table => row.text(),
                    ListFormat::Json => serde_json::to_string(&row)?,
                })?;
            }
        }
    }
    Ok(())
}

async fn row(registry: &Registry, repository: &RepoName, tag: Tag) -> anyhow::Result<Option<Row>> {
    let named = match registry.manifest(repository, &Reference::Tag(tag.clone())).await {
        Ok(named) => named,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let children = named.manifest.children();
    let platforms = children
        .iter()
        .filter_map(|child| child.platform.as_ref())
        .map(Platform::to_string)
        .collect();
    let mut row = Row {
        repository: repository.clone(),
        tag,
        digest: named.digest,
        size: None,
        created: None,
        platforms,
    };
    let image = if named.manifest.is_index() {
        let reference = Reference::Digest(named.digest);
        match registry
            .platform_manifest(repository, &reference, &Platform::host())
            .await
        {
            Ok(image) => image,
            Err(client::Error::NoPlatform { .. }) => return Ok(Some(row)),
            Err(error) => return Err(error.into()),
        }
    } else {
        named
    };
    row.size = Some(image.manifest.blobs().map(|blob| blob.size).sum());
    if let Some(config) = image.manifest.config()
        && let Ok(bytes) = registry.read_blob(repository, config, CONFIG_BYTES_MAX).await
        && let Ok(config) = ImageConfig::parse(&bytes)
    {
        if row.platforms.is_empty() && !config.os.is_empty() {
            row.platforms
                .push(format!("{}/{}", config.os, config.architecture));
        }
        row.created = config.created;
    }
    Ok(Some(row))
}

impl Row {
    fn text(&self) -> String {
        let size = self
            .size
            .map(|size| ByteSize(size).to_string())
            .unwrap_or_default();
        let created = self.created.as_deref().unwrap_or_default();
        // Seconds and their fractions are noise in a table.
        let created = created.get(..16).unwrap_or(created).replace('T', " ");
        columns(
            self.repository.as_str(),
            self.tag.as_str(),
            &self.digest.short(),
            &created,
            &size,
        )
    }
}

fn columns(repository: &str, tag: &str, digest: &str, created: &str, size: &str) -> String {
    format!("{repository:<32} {tag:<20} {digest:<12}  {created:<16}  {size}")
}
