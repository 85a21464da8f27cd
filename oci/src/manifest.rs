//! Manifests and indexes: parsed and checked once, kept as the bytes that came.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::descriptor::null_as_default;
use crate::{Algorithm, Descriptor, Digest, media_type};

/// How many blobs or manifests one manifest may refer to.
pub const MAX_REFERENCES: usize = 20_000;

/// A manifest or index with the bytes that make its digest. Serialising it again would change them, so nobody does.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub kind: ManifestKind,
    /// The media type it is stored and served under.
    pub media_type: String,
    /// The artifact type that the referrers API lists: the manifest's own, else the config's media type for an image
    /// manifest; empty for an index that names none (distribution spec, "Listing Referrers").
    pub artifact_type: String,
    pub subject: Option<Descriptor>,
    pub annotations: BTreeMap<String, String>,
    bytes: Vec<u8>,
}

#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a manifest is one of many bytes; there are few in memory"
)]
pub enum ManifestKind {
    Image {
        config: Descriptor,
        layers: Vec<Descriptor>,
    },
    Index {
        manifests: Vec<Descriptor>,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("manifest is not valid JSON of its type: {0}")]
    Json(#[from] serde_json::Error),
    #[error("manifest type {0:?} is not supported: send an OCI or Docker schema 2 manifest or index")]
    UnsupportedType(String),
    #[error("manifest has no media type: set Content-Type or the mediaType field")]
    NoType,
    #[error("manifest says mediaType {field:?} but was sent as Content-Type {header:?}")]
    TypeMismatch { field: String, header: String },
    #[error("manifest schemaVersion is {0}: only 2 is supported")]
    SchemaVersion(u64),
    #[error("manifest has {0:?}, which a {1} must not have")]
    Confused(&'static str, &'static str),
    #[error("manifest lacks {0:?}")]
    Missing(&'static str),
    #[error("manifest refers to {0} objects: at most {MAX_REFERENCES}")]
    TooManyReferences(usize),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u64,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    /// Docker schema 1's field: its presence betrays a confused document.
    fs_layers: Option<serde::de::IgnoredAny>,
    subject: Option<Descriptor>,
    #[serde(default, deserialize_with = "null_as_default")]
    annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Parses and checks a manifest sent as `content_type` (without parameters), which an OCI document may leave out.
    pub fn parse(content_type: Option<&str>, bytes: Vec<u8>) -> Result<Self, ManifestError> {
        let raw: Raw = serde_json::from_slice(&bytes)?;
        if raw.schema_version != 2 {
            return Err(ManifestError::SchemaVersion(raw.schema_version));
        }
        let media_type = agreed_type(content_type, raw.media_type.as_deref())?;
        if raw.fs_layers.is_some() {
            return Err(ManifestError::Confused("fsLayers", "schema 2 manifest"));
        }
        let kind = match media_type.as_str() {
            media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => {
                if raw.manifests.is_some() {
                    return Err(ManifestError::Confused("manifests", "image manifest"));
                }
                ManifestKind::Image {
                    config: raw.config.ok_or(ManifestError::Missing("config"))?,
                    layers: raw.layers.ok_or(ManifestError::Missing("layers"))?,
                }
            }
            media_type::OCI_INDEX | media_type::DOCKER_LIST => {
                if raw.layers.is_some() {
                    return Err(ManifestError::Confused("layers", "index"));
                }
                if raw.config.is_some() {
                    return Err(ManifestError::Confused("config", "index"));
                }
                ManifestKind::Index {
                    manifests: raw.manifests.ok_or(ManifestError::Missing("manifests"))?,
                }
            }
            other => return Err(ManifestError::UnsupportedType(other.to_owned())),
        };
        let artifact_type = match (&kind, raw.artifact_type) {
            (_, Some(own)) if !own.is_empty() => own,
            (ManifestKind::Image { config, .. }, _) => config.media_type.clone(),
            (ManifestKind::Index { .. }, _) => String::new(),
        };
        let manifest = Self {
            kind,
            media_type,
            artifact_type,
            subject: raw.subject,
            annotations: raw.annotations,
            bytes,
        };
        let references = manifest.blobs().count() + manifest.children().len();
        if references > MAX_REFERENCES {
            return Err(ManifestError::TooManyReferences(references));
        }
        Ok(manifest)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub fn digest(&self, algorithm: Algorithm) -> Digest {
        Digest::of(algorithm, &self.bytes)
    }

    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The blobs that must be in the repository: config and layers, without those that live elsewhere.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let (config, layers) = match &self.kind {
            ManifestKind::Image { config, layers } => (Some(config), layers.as_slice()),
            ManifestKind::Index { .. } => (None, &[] as &[Descriptor]),
        };
        config
            .into_iter()
            .chain(layers)
            .filter(|blob| !media_type::is_non_distributable(&blob.media_type))
    }

    /// All layers of an image manifest, lowest first; empty for an index.
    pub fn layers(&self) -> &[Descriptor] {
        match &self.kind {
            ManifestKind::Image { layers, .. } => layers,
            ManifestKind::Index { .. } => &[],
        }
    }

    pub fn config(&self) -> Option<&Descriptor> {
        match &self.kind {
            ManifestKind::Image { config, .. } => Some(config),
            ManifestKind::Index { .. } => None,
        }
    }

    /// The manifests that an index lists; empty for an image manifest.
    pub fn children(&self) -> &[Descriptor] {
        match &self.kind {
            ManifestKind::Image { .. } => &[],
            ManifestKind::Index { manifests } => manifests,
        }
    }

    pub fn is_index(&self) -> bool {
        matches!(self.kind, ManifestKind::Index { .. })
    }

    /// The descriptor that the referrers API lists for this manifest.
    pub fn referrer_descriptor(&self, digest: Digest) -> Descriptor {
        let mut descriptor = Descriptor::new(self.media_type.clone(), digest, self.size());
        descriptor.annotations = self.annotations.clone();
        descriptor.artifact_type = (!self.artifact_type.is_empty()).then(|| self.artifact_type.clone());
        descriptor
    }
}

fn agreed_type(header: Option<&str>, field: Option<&str>) -> Result<String, ManifestError> {
    match (
        header.filter(|text| !text.is_empty()),
        field.filter(|text| !text.is_empty()),
    ) {
        (Some(header), Some(field)) if header != field => Err(ManifestError::TypeMismatch {
            field: field.to_owned(),
            header: header.to_owned(),
        }),
        (Some(agreed), _) | (None, Some(agreed)) => Ok(agreed.to_owned()),
        (None, None) => Err(ManifestError::NoType),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(media_type: &str) -> String {
        format!(
            r#"{{"mediaType":"{media_type}","digest":"{}","size":2}}"#,
            Digest::sha256(b"{}")
        )
    }

    fn image(extra: &str) -> Vec<u8> {
        format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{}]{extra}}}"#,
            descriptor(media_type::OCI_CONFIG),
            descriptor(media_type::OCI_LAYER_GZIP)
        )
        .into_bytes()
    }

    #[test]
    fn the_artifact_type_falls_back_to_the_config() {
        let plain = Manifest::parse(Some(media_type::OCI_MANIFEST), image("")).unwrap();
        assert_eq!(plain.artifact_type, media_type::OCI_CONFIG);
        assert_eq!(plain.blobs().count(), 2);
        let named = Manifest::parse(
            Some(media_type::OCI_MANIFEST),
            image(r#","artifactType":"a/b","annotations":null"#),
        )
        .unwrap();
        assert_eq!(named.artifact_type, "a/b");
    }

    #[test]
    fn non_distributable_layers_need_not_be_here() {
        let text = String::from_utf8(image("")).unwrap().replace(
            media_type::OCI_LAYER_GZIP,
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        );
        let manifest = Manifest::parse(Some(media_type::OCI_MANIFEST), text.into_bytes()).unwrap();
        assert_eq!((manifest.blobs().count(), manifest.layers().len()), (1, 1));
    }

    #[test]
    fn confused_documents_are_refused() {
        for (content_type, bytes, message) in [
            (
                Some(media_type::OCI_MANIFEST),
                image(r#","manifests":[]"#),
                "must not have",
            ),
            (
                Some(media_type::OCI_INDEX),
                image(r#","manifests":[]"#),
                "must not have",
            ),
            (
                Some(media_type::OCI_INDEX),
                b"{\"schemaVersion\":2}".to_vec(),
                "lacks \"manifests\"",
            ),
            (
                Some(media_type::OCI_MANIFEST),
                image(&format!(r#","mediaType":"{}""#, media_type::OCI_INDEX)),
                "was sent as",
            ),
            (None, image(""), "no media type"),
            (Some("text/plain"), image(""), "not supported"),
            (Some(media_type::OCI_MANIFEST), b"{".to_vec(), "not valid JSON"),
            (
                Some(media_type::OCI_MANIFEST),
                b"{\"schemaVersion\":1}".to_vec(),
                "only 2",
            ),
        ] {
            let error = Manifest::parse(content_type, bytes)
                .expect_err(message)
                .to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
