//! A registry's client: authentication, pull, push, resume, verify. Used by the mirror, `copy`, and the build worker.
//!
//! [`Registry`] speaks `/v2` with one registry, [`api_client::Api`] speaks `/api/v1` with a Layeryard server. Both send
//! through one transport that follows redirects without leaking credentials, authenticates, and repeats what failed
//! for a moment. [`copy`] moves images between two registries byte for byte.

mod registry;

pub mod api;
pub mod api_client;
pub mod copy;
pub mod credentials;

mod auth;
mod endpoint;
mod error;
mod guard;
mod http_pool;
mod retry;
mod transport;

pub use endpoint::{Access, Options};
pub use error::{Error, Place};
pub use guard::{AddressRefused, Guard};
pub use http_pool::Http;
pub use registry::{
    BlobSource, ByteStream, BytesSource, FetchedManifest, FileSource, MANIFEST_BYTES_MAX, Page, Registry,
    Upload, choose_platform, into_reader,
};
