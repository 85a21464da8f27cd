//! What is told of without being kept: pulls, single blobs, mounts. They change nothing that anybody could miss, and
//! there are far more of them than a database should hold; whoever can't take them as they come misses some.

use std::sync::Arc;
use std::time::Duration;

use oci::{Digest, RepoName, Tag};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::envelope::{self, Source};
use super::{filter, post};
use crate::config::WebhookConfig;
use crate::metadata::Origin;

/// What waits for an endpoint at most.
const WAITING_MAX: usize = 4096;
/// What is told at once, when so much waits.
const TOLD_AT_ONCE: usize = 64;
/// How long a stopping server goes on telling.
const STOP_MAX: Duration = Duration::from_secs(2);

/// Something that somebody did.
#[derive(Clone, Debug)]
pub(crate) struct Notice {
    pub(crate) action: Action,
    pub(crate) repository: RepoName,
    pub(crate) subject: Subject,
    pub(crate) digest: Digest,
    pub(crate) size: Option<u64>,
    pub(crate) request: Request,
    pub(crate) at: OffsetDateTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Pull,
    Push,
    Mount,
    Delete,
}

/// What it was done to.
#[derive(Clone, Debug)]
pub(crate) enum Subject {
    Manifest {
        media_type: String,
        tag: Option<Tag>,
    },
    /// `from`: of which repository it was mounted.
    Blob {
        from: Option<RepoName>,
    },
}

/// By which request, and whose.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: http::Method,
    pub(crate) actor: String,
    pub(crate) origin: Origin,
}

impl Action {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Mount => "mount",
            Self::Delete => "delete",
        }
    }
}

impl Subject {
    pub(super) fn is_blob(&self) -> bool {
        matches!(self, Self::Blob { .. })
    }
}

/// Tells each endpoint of what it wants to hear of.
pub(crate) struct Notices {
    endpoints: Vec<Endpoint>,
    tellers: Mutex<Vec<JoinHandle<()>>>,
    dropped: Counter,
}

struct Endpoint {
    config: WebhookConfig,
    /// None: the server stops.
    queue: Mutex<Option<mpsc::Sender<Arc<Notice>>>>,
}

impl Notices {
    /// `dropped` counts what an endpoint didn't get. None: nobody wants notices.
    pub(crate) fn start(
        client: &reqwest::Client,
        all: &[WebhookConfig],
        address: &str,
        dropped: Counter,
    ) -> Option<Self> {
        let mut endpoints = Vec::new();
        let mut tellers = Vec::new();
        for config in all.iter().filter(|config| filter::wants_notices(config)) {
            let (queue, waiting) = mpsc::channel(WAITING_MAX);
            let teller = Teller {
                client: client.clone(),
                endpoint: config.clone(),
                source: Source::new(address.to_owned()),
                dropped: dropped.clone(),
                failing: false,
            };
            tellers.push(tokio::spawn(teller.run(waiting)));
            endpoints.push(Endpoint {
                config: config.clone(),
                queue: Mutex::new(Some(queue)),
            });
        }
        (!endpoints.is_empty()).then(|| Self {
            endpoints,
            tellers: Mutex::new(tellers),
            dropped,
        })
    }

    /// Whether anybody would hear of such a thing, in whichever repository.
    pub(crate) fn wants(&self, action: Action, blob: bool) -> bool {
        self.endpoints
            .iter()
            .any(|endpoint| filter::wants_action(&endpoint.config, action.name(), blob))
    }

    /// Never waits.
    pub(crate) fn tell(&self, notice: Notice) {
        let notice = Arc::new(notice);
        for endpoint in &self.endpoints {
            if !filter::wants_notice(&endpoint.config, &notice) {
                continue;
            }
            let sent = match &*endpoint.queue.lock() {
                Some(queue) => queue.try_send(Arc::clone(&notice)).is_ok(),
                None => false,
            };
            if !sent {
                self.dropped.inc();
            }
        }
    }

    /// Tells what waits, for a moment.
    pub(crate) async fn stop(&self) {
        for endpoint in &self.endpoints {
            drop(endpoint.queue.lock().take());
        }
        let tellers = std::mem::take(&mut *self.tellers.lock());
        let ended = futures::future::join_all(tellers);
        if tokio::time::timeout(STOP_MAX, ended).await.is_err() {
            tracing::warn!("some notices were not told any more");
        }
    }
}

/// Tells one endpoint, in order.
struct Teller {
    client: reqwest::Client,
    endpoint: WebhookConfig,
    source: Source,
    dropped: Counter,
    failing: bool,
}

impl Teller {
    async fn run(mut self, mut waiting: mpsc::Receiver<Arc<Notice>>) {
        let mut notices = Vec::with_capacity(TOLD_AT_ONCE);
        while waiting.recv_many(&mut notices, TOLD_AT_ONCE).await > 0 {
            let body = envelope::of_notices(&notices, &self.source);
            let told = post(&self.client, &self.endpoint, body).await;
            if told.is_err() {
                self.dropped.inc_by(notices.len() as u64);
            }
            self.report(told);
            notices.clear();
        }
    }

    /// Says once that it goes wrong, and once that it goes well again.
    fn report(&mut self, told: Result<(), String>) {
        let endpoint = &self.endpoint.name;
        match &told {
            Err(problem) if !self.failing => tracing::warn!(endpoint, problem, "notices are lost"),
            Ok(()) if self.failing => tracing::info!(endpoint, "notices are taken again"),
            _ => {}
        }
        self.failing = told.is_err();
    }
}
