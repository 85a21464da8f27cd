//! How many uploads run at once: each holds a descriptor, two batches of memory and a share of the disk, and slow ones
//! hold them for long.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;

use super::{ApiError, Code};
use crate::config::Limits;
use crate::service::Principal;
use crate::service::access::network;

/// When a client that was refused may try again.
const RETRY_SECONDS: &str = "5";

pub(crate) struct UploadSlots {
    running: Arc<Mutex<Running>>,
    all_max: usize,
    client_max: usize,
    refused: Counter,
}

#[derive(Default)]
struct Running {
    all: usize,
    of: HashMap<Box<str>, usize>,
}

/// One upload's. Free again when it is dropped.
pub(super) struct UploadSlot {
    running: Arc<Mutex<Running>>,
    client: Box<str>,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    All(usize),
    Client(usize),
}

impl UploadSlots {
    pub(crate) fn new(limits: &Limits, refused: Counter) -> Self {
        Self {
            running: Arc::default(),
            all_max: limits.uploads_max,
            client_max: limits.uploads_per_client_max,
            refused,
        }
    }

    /// A slot for a caller: by its name, or if it has none by its address.
    pub(super) fn take(&self, principal: &Principal, address: Option<IpAddr>) -> Result<UploadSlot, Full> {
        let client = match address {
            Some(address) if !principal.is_authenticated() => network(address).to_string(),
            _ => principal.actor(),
        };
        self.take_for(client.into_boxed_str())
    }

    fn take_for(&self, client: Box<str>) -> Result<UploadSlot, Full> {
        let mut running = self.running.lock();
        if running.all >= self.all_max {
            self.refused.inc();
            return Err(Full::All(self.all_max));
        }
        let own = running.of.entry(client.clone()).or_default();
        if *own >= self.client_max {
            self.refused.inc();
            return Err(Full::Client(self.client_max));
        }
        *own += 1;
        running.all += 1;
        Ok(UploadSlot {
            running: Arc::clone(&self.running),
            client,
        })
    }
}

impl Drop for UploadSlot {
    fn drop(&mut self) {
        let mut running = self.running.lock();
        running.all -= 1;
        if let Some(own) = running.of.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                running.of.remove(&self.client);
            }
        }
    }
}

impl From<Full> for ApiError {
    fn from(full: Full) -> Self {
        let message = match full {
            Full::All(limit) => {
                format!("{limit} uploads are running, which is all that this server does at once")
            }
            Full::Client(limit) => format!("{limit} uploads of yours are running: finish one first"),
        };
        Self::new(Code::TooManyRequests, message).with_header(http::header::RETRY_AFTER, RETRY_SECONDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_counted_for_all_and_for_each() {
        let limits = Limits {
            uploads_max: 3,
            uploads_per_client_max: 2,
            ..Limits::default()
        };
        let refused = Counter::default();
        let slots = UploadSlots::new(&limits, refused.clone());
        let take = |client: &str| slots.take_for(client.into());
        let (first, _second) = (take("anna").ok(), take("anna").ok());
        assert_eq!(take("anna").err(), Some(Full::Client(2)));
        let third = take("bert").ok();
        assert!(first.is_some() && third.is_some());
        assert_eq!(take("carl").err(), Some(Full::All(3)));
        drop(first);
        assert!(take("anna").is_ok());
        drop(third);
        assert!(take("carl").is_ok());
        assert_eq!(refused.get(), 2);
        assert!(!slots.running.lock().of.contains_key("bert"), "forgotten");
    }
}
