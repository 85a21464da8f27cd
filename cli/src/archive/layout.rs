//! OCI layouts (image spec, image-layout.md): pushed byte for byte.

use std::collections::HashSet;

use anyhow::{Context as _, anyhow, bail, ensure};
use client::Registry;
use oci::{Algorithm, Descriptor, Digest, Manifest, Reference, RepoName};
use serde::Deserialize;

use super::load::{Target, target_of};
use super::store::Store;
use crate::failure::Usage;
use crate::progress::Transfer;

/// Where the names of a layout's images stand.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// How deeply indexes may list indexes.
const DEPTH_MAX: usize = 8;

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

pub(crate) async fn load(
    store: &Store,
    registry: &Registry,
    name: Option<Target>,
) -> anyhow::Result<Vec<(Target, Digest)>> {
    let index = store.read("index.json")?.unwrap_or_default();
    let index: Index = serde_json::from_slice(&index).context("the layout's index.json")?;
    let images = names(&index, name)?;
    let mut loaded = Vec::new();
    for (target, descriptor) in images {
        let mut push = Push {
            store,
            registry,
            repository: &target.repository,
            done: HashSet::new(),
        };
        push.tree(descriptor, Some(&Reference::Tag(target.tag.clone())))
            .await?;
        loaded.push((target, descriptor.digest));
    }
    Ok(loaded)
}

/// Which image goes where.
fn names(index: &Index, name: Option<Target>) -> anyhow::Result<Vec<(Target, &Descriptor)>> {
    let distinct: HashSet<Digest> = index.manifests.iter().map(|image| image.digest).collect();
    match (name, index.manifests.as_slice()) {
        (_, []) => bail!("the layout has no images"),
        (Some(target), [first, ..]) if distinct.len() == 1 => Ok(vec![(target, first)]),
        (Some(_), _) => Err(Usage(format!(
            "--name is for one image, but the layout has {}",
            distinct.len()
        ))
        .into()),
        (None, images) => {
            let named = |image| Ok((target_of(own_name(image)?)?, image));
            images.iter().map(named).collect()
        }
    }
}

fn own_name(image: &Descriptor) -> anyhow::Result<&str> {
    let name = image
        .annotations
        .get(CONTAINERD_NAME)
        .or_else(|| image.annotations.get(REF_NAME));
    let name =
        name.ok_or_else(|| anyhow!("an image of the layout has no name: give it one with --name NAME"))?;
    // A bare tag, as `skopeo copy … oci:DIR:TAG` writes it, names no repository.
    ensure!(
        name.contains(['/', ':']),
        "the layout's image is named {name:?}, a tag without a repository: give it a name with --name NAME:{name}"
    );
    Ok(name)
}

struct Push<'a> {
    store: &'a Store,
    registry: &'a Registry,
    repository: &'a RepoName,
    /// Blobs and manifests that the registry has.
    done: HashSet<Digest>,
}

impl Push<'_> {
    /// Pushes what is below a manifest, then the manifest; children before their index.
    async fn tree(&mut self, root: &Descriptor, name: Option<&Reference>) -> anyhow::Result<()> {
        let mut order: Vec<Manifest> = Vec::new();
        let mut seen = HashSet::new();
        self.collect(root, &mut order, &mut seen, DEPTH_MAX)?;
        for manifest in order {
            for blob in manifest.blobs() {
                self.blob(blob).await?;
            }
            let own = manifest.digest(root.digest.algorithm());
            let reference = match name {
                Some(name) if own == root.digest => name.clone(),
                _ => Reference::Digest(own),
            };
            let media_type = manifest.media_type.clone();
            self.registry
                .put_manifest(
                    self.repository,
                    &reference,
                    &media_type,
                    manifest.into_bytes().into(),
                )
                .await?;
        }
        Ok(())
    }

    /// Reads and checks a manifest and all it lists.
    fn collect(
        &self,
        descriptor: &Descriptor,
        order: &mut Vec<Manifest>,
        seen: &mut HashSet<Digest>,
        depth: usize,
    ) -> anyhow::Result<()> {
        if !seen.insert(descriptor.digest) {
            return Ok(());
        }
        ensure!(
            depth > 0,
            "the layout's indexes are nested more than {DEPTH_MAX} deep"
        );
        let file = blob_name(&descriptor.digest);
        let bytes = self.store.read(&file)?.ok_or_else(|| {
            anyhow!(
                "the layout lacks {file}: it holds not all platforms of the index; save it with all of them"
            )
        })?;
        let actual = Digest::of(descriptor.digest.algorithm(), &bytes);
        ensure!(
            actual == descriptor.digest,
            "the layout's {file} is damaged: its digest is {actual}"
        );
        let manifest = Manifest::parse(Some(&descriptor.media_type), bytes)
            .with_context(|| format!("the layout's {file}"))?;
        for child in manifest.children() {
            self.collect(child, order, seen, depth - 1)?;
        }
        order.push(manifest);
        Ok(())
    }

    async fn blob(&mut self, blob: &Descriptor) -> anyhow::Result<()> {
        if !self.done.insert(blob.digest)
            || self
                .registry
                .stat_blob(self.repository, &blob.digest)
                .await?
                .is_some()
        {
            return Ok(());
        }
        let source = self.store.expect(&blob_name(&blob.digest))?;
        ensure!(
            source.length == blob.size,
            "the layout's blob {} has {} bytes, its descriptor says {}",
            blob.digest,
            source.length,
            blob.size
        );
        let bar = Transfer::start(&format!("loading {}", blob.digest.short()), Some(blob.size), true);
        let pushed = self
            .registry
            .push_blob(self.repository, &blob.digest, blob.size, &source)
            .await;
        bar.finish();
        Ok(pushed?)
    }
}

/// `blobs/sha256/<hex>`.
pub(crate) fn blob_name(digest: &Digest) -> String {
    let algorithm: Algorithm = digest.algorithm();
    format!("blobs/{algorithm}/{}", digest.hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(names: &[(&str, &str)]) -> Index {
        let image = |(number, (key, name)): (usize, &(&str, &str))| {
            let mut image = Descriptor::new("t", Digest::sha256(&[number as u8]), 1);
            image.annotations.insert((*key).to_owned(), (*name).to_owned());
            image
        };
        Index {
            manifests: names.iter().enumerate().map(image).collect(),
        }
    }

    #[test]
    fn images_are_named_by_annotations_or_by_the_user() {
        let layout = index(&[
            (REF_NAME, "team/app:1"),
            (CONTAINERD_NAME, "docker.io/library/x:2"),
        ]);
        let found = names(&layout, None).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|(target, _)| (target.repository.as_str(), target.tag.as_str()))
            .collect();
        assert_eq!(found, [("team/app", "1"), ("x", "2")]);
        let target = target_of("given:3").unwrap();
        assert!(names(&layout, Some(target.clone())).is_err_and(|error| error.is::<Usage>()));
        assert_eq!(
            names(&index(&[(REF_NAME, "v1")]), Some(target.clone())).unwrap()[0].0,
            target
        );
        let error = names(&index(&[(REF_NAME, "v1")]), None).unwrap_err();
        assert!(error.to_string().contains("--name NAME:v1"), "{error}");
        assert!(names(&index(&[]), None).is_err());
    }
}
