//! Images by the names that people write: found here, or fetched from the registry that has them, once.
//!
//! An upstream's image is kept under [`ImageRef::local_repository`]. Each build asks with HEAD whether the tag moved; if
//! not, nothing is transferred. An upstream that cannot be asked doesn't stop a build whose image is here.

mod error;
mod fetch;
mod names;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use client::api::{Credential, ResolvedReference};
use client::{Access, Guard, Http, Options};
use oci::{Digest, ImageRef, Manifest, Platform, Reference, RepoName};
use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedSender;

use super::{Action, Principal, Registry, RegistryError};
pub(crate) use error::UpstreamError;
use fetch::Fetch;
pub(crate) use names::OwnNames;
use names::Owner;

pub(crate) type Result<T, E = UpstreamError> = std::result::Result<T, E>;

pub(crate) struct Upstream {
    registry: Arc<Registry>,
    names: ArcSwap<OwnNames>,
    guard: Arc<Guard>,
    http: Http,
    /// One fetch at a time of the same thing; who comes later finds it here.
    flights: Mutex<HashMap<(RepoName, Digest), Weak<Flight>>>,
}

/// Held while something is fetched.
type Flight = tokio::sync::Mutex<()>;

/// Who asks for an image, and how.
pub(crate) struct Question<'a> {
    pub(crate) principal: &'a Principal,
    /// The host by which the user calls this server.
    pub(crate) called: Option<&'a str>,
    pub(crate) reference: &'a str,
    pub(crate) platform: &'a Platform,
    /// Hears how far a fetch is.
    pub(crate) progress: UnboundedSender<Transfer>,
}

/// A fetch under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) done_bytes: u64,
    pub(crate) total_bytes: u64,
}

impl Upstream {
    pub(crate) fn new(registry: Arc<Registry>, names: OwnNames) -> Self {
        let guard = Guard::new(names.listeners().to_vec());
        let http = Http::guarded(Arc::clone(&guard));
        Self {
            registry,
            names: ArcSwap::from_pointee(names),
            guard,
            http,
            flights: Mutex::default(),
        }
    }

    /// Takes over the addresses that the server has in the end.
    pub(crate) fn listening(&self, addresses: &[SocketAddr]) {
        self.guard.set_listeners(addresses.to_vec());
        self.names.store(Arc::new(self.names.load().at(addresses)));
    }

    /// Finds the image of a name, fetching it if it is another registry's. `credential` gives the user's credential for
    /// a host.
    pub(crate) async fn resolve(
        &self,
        question: Question<'_>,
        credential: impl Fn(&str) -> Option<Credential>,
    ) -> Result<ResolvedReference> {
        let image: ImageRef = question.reference.parse()?;
        match self.names.load().owner(&image, question.called) {
            Owner::Own => self.own(&question, &image).await,
            Owner::Undecided => match self.own(&question, &image).await {
                Err(UpstreamError::Unknown { .. }) => self.foreign(&question, image, credential).await,
                found => found,
            },
            Owner::Upstream => self.foreign(&question, image, credential).await,
        }
    }

    async fn own(&self, question: &Question<'_>, image: &ImageRef) -> Result<ResolvedReference> {
        let unknown = || UpstreamError::Unknown {
            image: image.to_string(),
        };
        // What a caller may not pull does not exist for it.
        if !question.principal.may(Action::Pull, &image.repository) {
            return Err(unknown());
        }
        let found = self
            .here(&image.repository, &image.reference(), question.platform, image)
            .await?;
        let (digest, manifest) = found.ok_or_else(unknown)?;
        Ok(ResolvedReference {
            repository: image.repository.clone(),
            digest,
            manifest,
            upstream: None,
            warning: None,
        })
    }

    async fn foreign(
        &self,
        question: &Question<'_>,
        image: ImageRef,
        credential: impl Fn(&str) -> Option<Credential>,
    ) -> Result<ResolvedReference> {
        let image = image.or_docker_hub();
        let host = image.registry.clone().unwrap_or_default();
        let repository = image.local_repository()?;
        let builds = matches!(question.principal, Principal::Build(_));
        if !builds && !question.principal.may(Action::Push, &repository) {
            let actor = question.principal.actor();
            return Err(UpstreamError::Denied {
                actor,
                image: image.to_string(),
            });
        }
        let access = credential(&host).map_or(Access::Anonymous, Access::Credential);
        let options = Options {
            access,
            insecure: false,
            http: Some(self.http.clone()),
        };
        let remote = client::Registry::new(&host, options).map_err(|source| UpstreamError::Fetch {
            image: image.to_string(),
            source,
        })?;
        let fetch = Fetch {
            registry: &self.registry,
            principal: question.principal,
            remote,
            image: &image,
            repository: &repository,
            platform: question.platform,
            progress: &question.progress,
        };
        let (digest, manifest, warning) = self.current(&fetch).await?;
        if let Principal::Build(grant) = question.principal {
            grant.fetched.lock().insert(repository.clone());
        }
        Ok(ResolvedReference {
            repository,
            digest,
            manifest,
            upstream: Some(host),
            warning,
        })
    }

    /// The upstream's image as it is now, brought here if it isn't; what is here if the upstream can't be asked.
    async fn current(&self, fetch: &Fetch<'_>) -> Result<(Digest, Digest, Option<String>)> {
        match self.bring(fetch).await {
            Ok((digest, manifest)) => Ok((digest, manifest, None)),
            // Nobody has said that this user may have the image: then the copy is as closed as any repository.
            Err(error) if error.is_outage() && fetch.principal.may(Action::Pull, fetch.repository) => {
                let reference = fetch.image.reference();
                let held = self
                    .here(fetch.repository, &reference, fetch.platform, fetch.image)
                    .await;
                let Ok(Some((digest, manifest))) = held else {
                    return Err(error);
                };
                let warning = format!("{error}; using {manifest}, fetched earlier");
                tracing::warn!(image = %fetch.image, %error, "the upstream can't be asked: using what is here");
                Ok((digest, manifest, Some(warning)))
            }
            Err(error) => Err(error),
        }
    }

    async fn bring(&self, fetch: &Fetch<'_>) -> Result<(Digest, Digest)> {
        let digest = fetch.upstream_digest().await?;
        let flight = self.flight(fetch.repository, digest);
        let _alone = flight.lock().await;
        let by_digest = Reference::Digest(digest);
        let held = self
            .here(fetch.repository, &by_digest, fetch.platform, fetch.image)
            .await;
        match held {
            Ok(Some((digest, manifest))) => {
                fetch.tag(&digest).await?;
                Ok((digest, manifest))
            }
            Ok(None) => fetch.everything(digest).await,
            Err(error) => Err(error),
        }
    }

    /// What a reference names here, with the platform's manifest; `None` if either is not here.
    async fn here(
        &self,
        repository: &RepoName,
        reference: &Reference,
        platform: &Platform,
        image: &ImageRef,
    ) -> Result<Option<(Digest, Digest)>> {
        let Some(stored) = self.stored(repository, reference).await? else {
            return Ok(None);
        };
        let manifest =
            Manifest::parse(Some(&stored.media_type), stored.bytes.to_vec()).map_err(RegistryError::from)?;
        if !manifest.is_index() {
            return Ok(Some((stored.digest, stored.digest)));
        }
        let child = choose(&manifest, platform, image)?;
        let present = self.stored(repository, &Reference::Digest(child)).await?;
        Ok(present.map(|child| (stored.digest, child.digest)))
    }

    async fn stored(
        &self,
        repository: &RepoName,
        reference: &Reference,
    ) -> Result<Option<Arc<crate::metadata::StoredManifest>>> {
        match self.registry.manifest(repository, reference).await {
            Ok(stored) => Ok(Some(stored)),
            Err(RegistryError::ManifestUnknown { .. } | RegistryError::NameUnknown(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn flight(&self, repository: &RepoName, digest: Digest) -> Arc<Flight> {
        let mut flights = self.flights.lock();
        flights.retain(|_, flight| flight.strong_count() > 0);
        let slot = flights.entry((repository.clone(), digest)).or_default();
        slot.upgrade().unwrap_or_else(|| {
            let flight = Arc::default();
            *slot = Arc::downgrade(&flight);
            flight
        })
    }
}

/// The child of an index for a platform.
fn choose(index: &Manifest, platform: &Platform, image: &ImageRef) -> Result<Digest> {
    let place = client::Place::new("", image.to_string());
    match client::choose_platform(&place, index, platform) {
        Ok(child) => Ok(child.digest),
        Err(client::Error::NoPlatform {
            platform, offered, ..
        }) => Err(UpstreamError::NoPlatform {
            image: image.to_string(),
            platform,
            offered,
        }),
        Err(source) => Err(UpstreamError::Fetch {
            image: image.to_string(),
            source,
        }),
    }
}
