//! What is known of a connection beside its requests: who is there, and whether anything is going on.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::Outbox;
use crate::service::access::Arrival;

/// Where requests come from.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) arrival: Arrival,
    pub(crate) peer: Option<SocketAddr>,
    /// Where files can be sent past the HTTP library.
    pub(crate) outbox: Option<Outbox>,
    pub(crate) activity: Activity,
}

/// What a connection's requests say of it.
#[derive(Clone)]
pub(crate) struct Activity(Arc<Mutex<State>>);

struct State {
    /// None: nobody has asked anything yet.
    version: Option<Version>,
    running: usize,
    /// Since when nothing is running.
    quiet_since: Instant,
}

/// A request that is being answered.
pub(super) struct Busy(Activity);

impl Activity {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            version: None,
            running: 0,
            quiet_since: Instant::now(),
        })))
    }

    pub(super) fn begin(&self, version: Version) -> Busy {
        let mut state = self.0.lock();
        state.version = Some(version);
        state.running += 1;
        Busy(self.clone())
    }

    /// As [`Activity::quiet_for`], whatever was before.
    pub(crate) async fn quiet_from_now_for(&self, limit: Duration) {
        sleep_until(Instant::now() + limit).await;
        self.quiet_for(limit).await;
    }

    /// Returns when the connection has been without a request for so long. HTTP/1 after its first request is left to the
    /// HTTP library, which minds how long a request's head takes, and the time before it.
    pub(crate) async fn quiet_for(&self, limit: Duration) {
        loop {
            let end = {
                let state = self.0.lock();
                match (state.version, state.running) {
                    (Some(version), _) if version != Version::HTTP_2 => None,
                    (_, 0) => Some(state.quiet_since + limit),
                    // It can't be quiet for so long before this.
                    (_, _) => Some(Instant::now() + limit),
                }
            };
            match end {
                None => pending().await,
                Some(end) if end <= Instant::now() => return,
                Some(end) => sleep_until(end).await,
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.running -= 1;
        state.quiet_since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_connection_is_quiet_when_all_that_it_asked_is_answered() {
        let activity = Activity::new();
        // Nobody has asked anything.
        activity.quiet_for(LIMIT).await;
        let (first, second) = (activity.begin(Version::HTTP_2), activity.begin(Version::HTTP_2));
        assert!(timeout(3 * LIMIT, activity.quiet_for(LIMIT)).await.is_err());
        drop(first);
        assert!(timeout(3 * LIMIT, activity.quiet_for(LIMIT)).await.is_err());
        drop(second);
        activity.quiet_for(LIMIT).await;
    }

    #[tokio::test]
    async fn http_1_is_left_alone_once_it_has_asked() {
        let activity = Activity::new();
        drop(activity.begin(Version::HTTP_11));
        assert!(timeout(3 * LIMIT, activity.quiet_for(LIMIT)).await.is_err());
    }
}
