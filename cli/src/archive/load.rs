//! `layeryard load`: pushes the images of an archive.

use anyhow::{Context as _, bail};
use oci::{ImageRef, RepoName, Tag};

use super::store::Store;
use super::{docker, layout};
use crate::args::LoadArgs;
use crate::failure::Usage;
use crate::output;
use crate::server::ServerUrl;

/// Where an image of the archive goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) repository: RepoName,
    pub(crate) tag: Tag,
}

pub(crate) async fn run(args: LoadArgs) -> anyhow::Result<()> {
    let server: ServerUrl = args.server.server.parse()?;
    let name = match &args.name {
        Some(name) => {
            let (repository, tag) = server.own_name(name)?;
            Some(Target { repository, tag })
        }
        None => None,
    };
    if args.input.as_os_str() == "-" && std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        return Err(Usage("standard input is a terminal: name the archive with -i PATH".into()).into());
    }
    let input = args.input.clone();
    let store = tokio::task::spawn_blocking(move || Store::open(&input))
        .await
        .context("reading the archive")??;
    let registry = server.registry().await?;
    // Newer engines write both; the layout keeps manifests byte for byte.
    let loaded = if store.find("index.json")?.is_some() {
        layout::load(&store, &registry, name).await
    } else if store.find("manifest.json")?.is_some() {
        docker::load(&store, &registry, name).await
    } else {
        bail!(
            "{} has neither manifest.json (docker save) nor index.json (OCI layout)",
            args.input.display()
        );
    };
    for (target, digest) in server.explain(loaded)? {
        output::note(format_args!("{}:{}", target.repository, target.tag));
        output::line(digest)?;
    }
    Ok(())
}

/// The place of an image by its name in the archive; a registry's host means nothing here.
pub(crate) fn target_of(name: &str) -> anyhow::Result<Target> {
    let image: ImageRef = name
        .parse()
        .with_context(|| format!("the archive's image name {name:?}"))?;
    let repository = match image.registry.as_deref() {
        // Docker completes the names of its hub; without the host they are what the user wrote.
        Some("docker.io") => {
            let name = image.repository.as_str();
            name.strip_prefix("library/").unwrap_or(name).parse()?
        }
        _ => image.repository,
    };
    Ok(Target {
        repository,
        tag: image.tag.unwrap_or_else(Tag::latest),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_host() {
        for (name, repository, tag) in [
            ("travel/app:v1", "travel/app", "v1"),
            ("localhost:5000/app:2", "app", "2"),
            ("docker.io/library/busybox:1", "busybox", "1"),
            ("docker.io/org/app", "org/app", "latest"),
        ] {
            let target = target_of(name).unwrap();
            assert_eq!(
                (target.repository.as_str(), target.tag.as_str()),
                (repository, tag),
                "{name}"
            );
        }
    }
}
