//! Telling others of pushes and deletions, in the notification format of the CNCF's distribution.
//!
//! Events come from the outbox, so none is lost and none told that did not happen. A job in one process at a time turns
//! them into deliveries, one for each endpoint that wants them, and sends those in order; a delivery is forgotten when it
//! was answered with 2xx. So each arrives at least once, and may arrive twice. What happens too often for that, or
//! changes nothing, is told once or not at all (`notice.rs`).

mod envelope;
mod filter;
pub(crate) mod notice;

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use prometheus_client::metrics::counter::Counter;

use super::jobs::{JobError, Next, Scope, Turn};
use super::{Jobs, Result};
use crate::config::WebhookConfig;
use crate::metadata::{Delivery, MetadataStore};
use crate::report::chain;
use envelope::Source;
pub(crate) use notice::Notices;

const ROUND: Duration = Duration::from_millis(500);
/// After this long a turn ends, so that its time and its failures are told now and then.
const ROUNDS_A_TURN: u32 = 60;
const EVENTS_AT_ONCE: u32 = 100;
const DELIVERIES_AT_ONCE: u32 = 100;
const BACKOFF_MAX: Duration = Duration::from_secs(300);

/// The endpoints, and what they have not been told yet.
pub(crate) struct Webhooks {
    metadata: Arc<dyn MetadataStore>,
    client: reqwest::Client,
    endpoints: Vec<WebhookConfig>,
    source: Source,
    /// By which this server is told of.
    address: String,
}

impl Webhooks {
    pub(crate) fn new(
        metadata: Arc<dyn MetadataStore>,
        endpoints: Vec<WebhookConfig>,
        address: String,
    ) -> Result<Self, reqwest::Error> {
        Ok(Self {
            metadata,
            // An endpoint that redirects is configured wrongly; following would send its headers elsewhere.
            client: reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .build()?,
            endpoints,
            source: Source::new(address.clone()),
            address,
        })
    }

    /// What is told besides, as it happens. None: nobody wants to know.
    pub(crate) fn notices(&self, dropped: Counter) -> Option<Notices> {
        Notices::start(&self.client, &self.endpoints, &self.address, dropped)
    }

    /// Sends for the life of the server.
    pub(crate) fn keep_sending(self: Arc<Self>, jobs: &Jobs) {
        jobs.start("webhooks", ROUND, Scope::Singleton, move |turn| {
            let webhooks = Arc::clone(&self);
            async move { webhooks.turn(&turn).await }
        });
    }

    async fn turn(&self, turn: &Turn) -> Result<Next, JobError> {
        for _ in 0..ROUNDS_A_TURN {
            if turn.is_stopping() {
                break;
            }
            while self.fan_out().await? {}
            join_all(
                self.endpoints
                    .iter()
                    .map(|endpoint| self.send_due(endpoint, turn)),
            )
            .await;
            tokio::time::sleep(ROUND).await;
        }
        Ok(Next::GoOn)
    }

    /// Whether there may be more.
    async fn fan_out(&self) -> Result<bool> {
        let events = self.metadata.events_to_fan_out(EVENTS_AT_ONCE).await?;
        if events.is_empty() {
            return Ok(false);
        }
        let mut deliveries = Vec::new();
        for event in &events {
            for envelope in envelope::of(event, &self.source) {
                for endpoint in &self.endpoints {
                    if filter::wants(endpoint, event) {
                        deliveries.push((endpoint.name.clone(), envelope.clone()));
                    }
                }
            }
        }
        let ids: Vec<i64> = events.iter().map(|event| event.id).collect();
        self.metadata.fan_out(&ids, deliveries).await?;
        Ok(events.len() == EVENTS_AT_ONCE as usize)
    }

    /// Sends what is due, in order: a failure holds back what comes after it.
    async fn send_due(&self, endpoint: &WebhookConfig, turn: &Turn) {
        let due = match self
            .metadata
            .due_deliveries(&endpoint.name, DELIVERIES_AT_ONCE)
            .await
        {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(
                    endpoint = endpoint.name,
                    error = chain(&error),
                    "deliveries were not read"
                );
                return;
            }
        };
        for delivery in due {
            if turn.is_stopping() {
                return;
            }
            let outcome = post(&self.client, endpoint, delivery.body.clone()).await;
            let recorded = match &outcome {
                Ok(()) => self.metadata.finish_delivery(delivery.id).await,
                Err(problem) => self.failed(endpoint, &delivery, problem).await,
            };
            if let Err(error) = recorded {
                tracing::warn!(
                    endpoint = endpoint.name,
                    error = chain(&error),
                    "a delivery was not recorded"
                );
                return;
            }
            if outcome.is_err() {
                return;
            }
        }
    }

    async fn failed(
        &self,
        endpoint: &WebhookConfig,
        delivery: &Delivery,
        problem: &str,
    ) -> Result<(), crate::metadata::MetadataError> {
        let attempts = delivery.attempts + 1;
        if attempts >= endpoint.attempts_max {
            tracing::error!(
                endpoint = endpoint.name,
                attempts,
                problem,
                "a delivery is given up"
            );
            return self.metadata.finish_delivery(delivery.id).await;
        }
        let delay = endpoint
            .backoff
            .saturating_mul(1 << delivery.attempts.min(16))
            .min(BACKOFF_MAX.max(endpoint.backoff));
        tracing::warn!(
            endpoint = endpoint.name,
            attempts,
            problem,
            again_seconds = delay.as_secs(),
            "a delivery failed"
        );
        let micros = i64::try_from(delay.as_micros()).unwrap_or(i64::MAX);
        self.metadata.retry_delivery(delivery.id, micros).await
    }
}

/// Sends an envelope; an error says what was wrong with that.
async fn post(client: &reqwest::Client, endpoint: &WebhookConfig, body: String) -> Result<(), String> {
    let mut request = client
        .post(&endpoint.url)
        .timeout(endpoint.timeout)
        .header(http::header::CONTENT_TYPE, envelope::MEDIA_TYPE)
        .body(body);
    for (name, value) in &endpoint.headers {
        request = request.header(name, value.reveal());
    }
    let answer = request.send().await.map_err(|error| chain(&error))?;
    if answer.status().is_success() {
        return Ok(());
    }
    Err(format!("it answered {}", answer.status()))
}
