//! What a build is given and what it gives back.

use std::collections::BTreeMap;
use std::sync::Arc;

use oci::{Digest, Platform, RepoName, Tag};

use crate::event::EventSink;
use crate::services::{CacheStore, ContextSource, ImageSink, ImageSource};

/// One build, as its user asked for it.
#[derive(Clone, Debug)]
pub struct BuildInput {
    pub dockerfile: Dockerfile,
    pub target: Option<String>,
    pub build_args: BTreeMap<String, String>,
    /// The platform of the image.
    pub platform: Platform,
    /// Runs every step although the cache may know its result; results are still recorded.
    pub no_cache: bool,
    /// Keeps the layers and the manifest; what [`ImageSink`] writes to.
    pub repository: RepoName,
    /// Where the finished image is tagged; may be empty.
    pub tags: Vec<(RepoName, Tag)>,
}

/// The Dockerfile's text and the name by which messages call it.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    pub name: String,
    pub text: String,
}

/// The build's only doors.
#[derive(Clone)]
pub struct Services {
    pub images: Arc<dyn ImageSource>,
    pub sink: Arc<dyn ImageSink>,
    pub cache: Arc<dyn CacheStore>,
    pub context: Arc<dyn ContextSource>,
    pub events: Arc<dyn EventSink>,
}

/// A finished image: its manifest is durable and tagged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildOutput {
    pub digest: Digest,
    pub manifest_size: u64,
    /// `repository:tag` of every tag, or `repository@digest` if there is none.
    pub names: Vec<String>,
}
