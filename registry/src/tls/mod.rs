//! TLS of the listeners: certificates that are replaced while connections go on, and clients that show one.

mod subject;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::TlsConfig;
use crate::report::chain;
use crate::watch::Stamp;
use subject::Subject;

/// The certificates that are shown and asked for now.
pub(crate) struct Tls {
    config: TlsConfig,
    current: ArcSwap<ServerConfig>,
    stamps: Mutex<Vec<Option<Stamp>>>,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        source: rustls::pki_types::pem::Error,
    },
    #[error("there is no certificate in {}", path.display())]
    Empty { path: PathBuf },
    #[error("the certificates in {} are no authorities", path.display())]
    Authority {
        path: PathBuf,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("certificate {} and key {} do not go together", cert.display(), key.display())]
    Pair {
        cert: PathBuf,
        key: PathBuf,
        source: rustls::Error,
    },
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

impl Tls {
    pub(crate) fn open(config: TlsConfig) -> Result<Self, TlsError> {
        let stamps = stamps(&config);
        Ok(Self {
            current: ArcSwap::new(Arc::new(load(&config)?)),
            stamps: Mutex::new(stamps),
            config,
        })
    }

    /// Reads the files again if they have changed. What is broken changes nothing.
    pub(crate) fn refresh(&self) {
        let now = stamps(&self.config);
        let mut known = self.stamps.lock();
        if *known == now {
            return;
        }
        *known = now;
        match load(&self.config) {
            Ok(config) => {
                self.current.store(Arc::new(config));
                tracing::info!(certificate = %self.config.cert.display(), "the certificate was read again");
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "the certificate is left as it was");
            }
        }
    }

    /// Shakes hands; also tells the user that the client's certificate stands for.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, Option<Arc<str>>)> {
        let acceptor = TlsAcceptor::from(self.current.load_full());
        let stream = acceptor.accept(stream).await?;
        let certificates = stream.get_ref().1.peer_certificates();
        let user = certificates.and_then(|chain| self.user(chain.first()?));
        Ok((stream, user))
    }

    fn user(&self, certificate: &CertificateDer<'_>) -> Option<Arc<str>> {
        let subject = Subject::of(certificate)?;
        let client = self
            .config
            .clients
            .iter()
            .find(|client| subject.is(&client.subject));
        client.map(|client| Arc::from(client.user.as_str()))
    }
}

fn load(config: &TlsConfig) -> Result<ServerConfig, TlsError> {
    let certificates = certificates(&config.cert)?;
    let key = PrivateKeyDer::from_pem_file(&config.key).map_err(|source| TlsError::Read {
        path: config.key.clone(),
        source,
    })?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?;
    let builder = match &config.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let wrong = |source: Box<dyn std::error::Error + Send + Sync>| TlsError::Authority {
                path: path.clone(),
                source,
            };
            let mut roots = RootCertStore::empty();
            for authority in self::certificates(path)? {
                roots.add(authority).map_err(|error| wrong(error.into()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if config.client_required {
                verifier
            } else {
                verifier.allow_unauthenticated()
            };
            let verifier = verifier.build().map_err(|error| wrong(error.into()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut server = builder
        .with_single_cert(certificates, key)
        .map_err(|source| TlsError::Pair {
            cert: config.cert.clone(),
            key: config.key.clone(),
            source,
        })?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(server)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Read {
        path: path.to_owned(),
        source,
    };
    let found = CertificateDer::pem_file_iter(path).map_err(failed)?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(failed)?;
    if found.is_empty() {
        return Err(TlsError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(found)
}

fn stamps(config: &TlsConfig) -> Vec<Option<Stamp>> {
    let files = [Some(&config.cert), Some(&config.key), config.client_ca.as_ref()];
    files
        .into_iter()
        .flatten()
        .map(|path| Stamp::of(path).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(common_name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Example");
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn new_files_are_taken_and_broken_ones_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let (cert, key) = (
            directory.path().join("cert.pem"),
            directory.path().join("key.pem"),
        );
        let write = |pair: &(String, String)| {
            std::fs::write(&cert, &pair.0).unwrap();
            std::fs::write(&key, &pair.1).unwrap();
        };
        let (first, second) = (certificate("first"), certificate("second"));
        write(&first);
        let config = TlsConfig {
            cert: cert.clone(),
            key: key.clone(),
            client_ca: None,
            client_required: false,
            clients: Vec::new(),
        };
        let tls = Tls::open(config.clone()).unwrap();
        let held = tls.current.load_full();
        tls.refresh();
        assert!(
            Arc::ptr_eq(&held, &tls.current.load_full()),
            "nothing has changed"
        );
        std::fs::write(&key, &second.1).unwrap();
        tls.refresh();
        assert!(Arc::ptr_eq(&held, &tls.current.load_full()), "the pair is broken");
        assert!(matches!(load(&config), Err(TlsError::Pair { .. })));
        write(&second);
        tls.refresh();
        assert!(!Arc::ptr_eq(&held, &tls.current.load_full()));
        std::fs::write(&cert, "nothing").unwrap();
        assert!(load(&config).unwrap_err().to_string().contains("cert.pem"));
    }
}
