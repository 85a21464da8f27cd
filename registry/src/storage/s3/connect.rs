//! The client: addresses, credentials, trust, time-outs and retries.

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::{RetryConfig, RetryPartition, TokenBucket};
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedHttpClient,
};
use aws_smithy_http_client::tls::{self, TlsContext, TrustStore};

use crate::config::S3Config;
use crate::storage::{Result, StorageError};

const CONNECT_MAX: Duration = Duration::from_secs(5);
/// From the request's first byte to the answer's first, so that a part must go out in this time.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// With all attempts.
const OPERATION_MAX: Duration = Duration::from_secs(150);
/// A server that is away for ten seconds is waited for.
const ATTEMPTS_MAX: u32 = 8;
const BACKOFF_FIRST: Duration = Duration::from_millis(300);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// The client for the server's own requests, and the one that signs what clients are sent to.
pub(super) async fn clients(config: &S3Config) -> Result<(Client, Option<Client>)> {
    let http = http_client(config)?;
    let mut settings = Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(config.region.clone()))
        .force_path_style(config.path_style)
        .http_client(http.clone())
        // Servers other than Amazon's refuse the newer checksums or answer without them.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .retry_config(
            RetryConfig::standard()
                .with_max_attempts(ATTEMPTS_MAX)
                .with_initial_backoff(BACKOFF_FIRST)
                .with_max_backoff(BACKOFF_MAX),
        )
        // The default's tokens are used up by the first seconds of an outage under load; attempts bound us already.
        .retry_partition(
            RetryPartition::custom("layeryard")
                .token_bucket(TokenBucket::unlimited())
                .build(),
        )
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_MAX)
                .read_timeout(ANSWER_MAX)
                .operation_timeout(OPERATION_MAX)
                .build(),
        );
    match config
        .access_key_id
        .as_deref()
        .zip(config.secret_access_key.as_ref())
    {
        Some((id, secret)) => {
            let keys = Credentials::new(id, secret.reveal(), None, None, "layeryard");
            settings = settings.credentials_provider(keys);
        }
        None => {
            let chain = aws_config::defaults(BehaviorVersion::latest())
                .region(Region::new(config.region.clone()))
                .http_client(http)
                .load()
                .await;
            settings.set_credentials_provider(chain.credentials_provider());
        }
    }
    let signing = config.redirect.then(|| {
        let endpoint = config
            .redirect_endpoint
            .clone()
            .or_else(|| config.endpoint.clone());
        let mut settings = settings.clone();
        settings.set_endpoint_url(endpoint);
        Client::from_conf(settings.build())
    });
    settings.set_endpoint_url(config.endpoint.clone());
    Ok((Client::from_conf(settings.build()), signing))
}

fn http_client(config: &S3Config) -> Result<SharedHttpClient> {
    let failed = |source: std::io::Error, operation| StorageError::Store {
        path: config
            .ca_file
            .as_deref()
            .unwrap_or("s3".as_ref())
            .display()
            .to_string(),
        operation,
        source,
    };
    let trust = match &config.ca_file {
        None => TrustStore::default(),
        Some(path) => {
            let pem = std::fs::read(path).map_err(|error| failed(error, "reading its certificates"))?;
            TrustStore::empty().with_pem_certificate(pem)
        }
    };
    let context = TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .map_err(|error| failed(std::io::Error::other(error), "reading its certificates"))?;
    Ok(aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc))
        .tls_context(context)
        .build_https())
}
