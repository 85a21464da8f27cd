//! `[tls]`: certificates of the TCP listeners, and of clients.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ConfigError, require};

/// With it every TCP listener speaks TLS. The files are read again when they change and on SIGHUP.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The server's certificate and those between it and its authority, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Authorities whose certificates clients may show, PEM.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// Refuse clients without a certificate.
    #[serde(default)]
    pub client_required: bool,
    /// Which certificate is whose.
    #[serde(default, rename = "client")]
    pub clients: Vec<ClientCertificate>,
}

/// A certificate by its subject, `CN=runner-7,O=Example` with the parts in the certificate's order, or its common name
/// alone, and the user it stands for.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificate {
    pub subject: String,
    pub user: String,
}

impl TlsConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let authority = self.client_ca.is_some();
        require(
            authority || (!self.client_required && self.clients.is_empty()),
            "tls.client_ca",
            "is missing: whose client certificates are to be believed?",
        )
    }
}
