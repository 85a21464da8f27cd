//! Image names as commands take them: without a host the server's, with one that registry's.

use client::Registry;
use client::copy::Endpoint;
use oci::{ImageRef, Platform, Reference, RepoName};

use crate::failure::Usage;
use crate::server::ServerUrl;

/// Finds the place that a name means; nothing is asked yet.
pub(crate) async fn locate(text: &str, server: &ServerUrl, insecure: bool) -> anyhow::Result<Endpoint> {
    let image = parse(text)?;
    let own = image.registry.as_deref().is_none_or(|host| server.is_host(host));
    if own {
        let registry = server.registry().await?;
        return Ok(Endpoint {
            registry,
            reference: image.reference(),
            repository: image.repository,
        });
    }
    let image = image.or_docker_hub();
    let host = image.registry.clone().unwrap_or_default();
    let registry = Registry::for_user(&host, insecure).await?;
    Ok(Endpoint {
        registry,
        reference: image.reference(),
        repository: image.repository,
    })
}

/// A repository of the server's.
pub(crate) fn own_repository(text: &str, server: &ServerUrl) -> anyhow::Result<RepoName> {
    let image = parse(text)?;
    if image
        .registry
        .as_deref()
        .is_some_and(|host| !server.is_host(host))
        || image.tag.is_some()
    {
        return Err(Usage(format!(
            "{text:?} is no repository of {server}: expected a name such as team/app"
        ))
        .into());
    }
    Ok(image.repository)
}

pub(crate) fn platform(text: &str) -> anyhow::Result<Platform> {
    text.parse().map_err(|error| Usage(format!("{error}")).into())
}

/// `NAME:TAG` or `NAME@DIGEST`, for messages.
pub(crate) fn display(place: &Endpoint) -> String {
    match &place.reference {
        Reference::Tag(tag) => format!("{}:{tag}", place.repository),
        Reference::Digest(digest) => format!("{}@{digest}", place.repository),
    }
}

fn parse(text: &str) -> anyhow::Result<ImageRef> {
    text.parse().map_err(|error| Usage(format!("{error}")).into())
}
