//! Why an image's name could not be resolved.

use oci::ReferenceError;

use crate::service::RegistryError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error(transparent)]
    Name(#[from] ReferenceError),
    #[error("image {image} is not in this registry: push it first, or check its name")]
    Unknown { image: String },
    #[error("image {image} here has no manifest for platform {platform}, only for {offered}")]
    NoPlatform {
        image: String,
        platform: String,
        offered: String,
    },
    #[error("{actor} may not fetch {image} into this registry: building needs the right to push")]
    Denied { actor: String, image: String },
    #[error("cannot fetch {image}: {source}")]
    Fetch {
        image: String,
        #[source]
        source: client::Error,
    },
    /// A layer's bytes came, but could not be kept.
    #[error("cannot keep {image}: {source}")]
    Keep {
        image: String,
        #[source]
        source: RegistryError,
    },
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl UpstreamError {
    /// Whether the upstream could not be asked, so that what is here may stand in.
    pub(super) fn is_outage(&self) -> bool {
        matches!(self, Self::Fetch { source, .. } if source.is_outage())
    }
}
