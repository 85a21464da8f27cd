//! The vocabulary of OCI images and registries: digests, names, references, descriptors, manifests and image
//! configurations, after the OCI image specification 1.1 and distribution specification 1.1.
//!
//! This crate does no I/O. Every identifier is a newtype whose constructor validates, so that a value that exists is
//! a valid one and no raw string travels past the edge where it was parsed.

pub mod access;
mod config;
mod descriptor;
mod digest;
mod manifest;
pub mod media_type;
mod name;
mod platform;
pub mod range;
mod reference;

pub use config::{ContainerConfig, History, ImageConfig, RootFs};
pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, DigestError, HashState, Hasher};
pub use manifest::{MAX_REFERENCES, Manifest, ManifestError, ManifestKind};
pub use name::{NameError, REPO_NAME_LEN_MAX, RepoName, TAG_LEN_MAX, Tag};
pub use platform::Platform;
pub use reference::{DOCKER_HUB, ImageRef, Reference, ReferenceError};
