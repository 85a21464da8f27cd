//! A token service elsewhere, whose public keys are a file here.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::foreign::{Expected, KeyError, KeySet};
use super::gate::AccessError;
use super::proof::Proof;
use super::rules::{AccessClaim, Scope};
use super::signer::now_seconds;
use super::{Client, Identity};
use crate::config::ExternalTokenConfig;
use crate::report::chain;
use crate::watch::Stamp;

pub(super) struct External {
    config: ExternalTokenConfig,
    keys: ArcSwap<KeySet>,
    stamp: Mutex<Option<Stamp>>,
}

impl External {
    pub(super) fn open(config: ExternalTokenConfig) -> Result<Self, KeyError> {
        let keys = KeySet::read(&config.keys)?;
        Ok(Self {
            stamp: Mutex::new(Stamp::of(&config.keys).ok()),
            keys: ArcSwap::from_pointee(keys),
            config,
        })
    }

    pub(super) fn refresh(&self) {
        let now = Stamp::of(&self.config.keys).ok();
        let mut stamp = self.stamp.lock();
        if *stamp == now {
            return;
        }
        *stamp = now;
        match KeySet::read(&self.config.keys) {
            Ok(keys) => self.keys.store(Arc::new(keys)),
            Err(error) => tracing::error!(
                error = chain(&error),
                "the token service's keys are left as they were"
            ),
        }
    }

    pub(super) fn verify(&self, token: &str) -> Result<(Proof, Duration), AccessError> {
        #[derive(Clone, serde::Deserialize)]
        struct Foreign {
            #[serde(default)]
            sub: String,
            exp: u64,
            #[serde(default)]
            access: Vec<AccessClaim>,
        }
        let expected = Expected {
            issuer: &self.config.issuer,
            audience: &self.config.service,
        };
        let claims: Foreign = self.keys.load().verify(token, expected)?;
        let scope = Scope::of_claims(&claims.access);
        let client = Client::new(Identity::External(claims.sub), Arc::new(scope.rules()));
        let client = client.scoped(Arc::new(scope));
        let life = Duration::from_secs(claims.exp.saturating_sub(now_seconds()));
        Ok((Proof::Foreign(Arc::new(client)), life))
    }
}
