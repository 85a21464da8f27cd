//! How often passwords may be tried. Only passwords that are really checked count; those that were right a minute ago
//! are known.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use moka::sync::Cache;

/// Somebody who was right from an address is not locked out there by others' attempts.
const KNOWN_FOR: Duration = Duration::from_secs(24 * 3600);
const KNOWN_MAX: u64 = 10_000;

pub(super) struct Limiter {
    addresses: DefaultKeyedRateLimiter<IpAddr>,
    users: DefaultKeyedRateLimiter<String>,
    known: Cache<(String, IpAddr), ()>,
    clock: DefaultClock,
}

impl Limiter {
    pub(super) fn new(per_minute: u32) -> Self {
        let quota = Quota::per_minute(NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN));
        Self {
            addresses: DefaultKeyedRateLimiter::keyed(quota),
            users: DefaultKeyedRateLimiter::keyed(quota),
            known: Cache::builder()
                .max_capacity(KNOWN_MAX)
                .time_to_live(KNOWN_FOR)
                .build(),
            clock: DefaultClock::default(),
        }
    }

    /// Counts an attempt; an error says how long to wait.
    pub(super) fn attempt(&self, user: &str, address: Option<IpAddr>) -> Result<(), Duration> {
        let wait = |refused: governor::NotUntil<_>| refused.wait_time_from(self.clock.now());
        let address = address.map(network);
        if let Some(address) = address {
            self.addresses.check_key(&address).map_err(wait)?;
            if self.known.contains_key(&(user.to_owned(), address)) {
                return Ok(());
            }
        }
        self.users.check_key(&user.to_owned()).map_err(wait)
    }

    pub(super) fn succeeded(&self, user: &str, address: Option<IpAddr>) {
        if let Some(address) = address {
            self.known.insert((user.to_owned(), network(address)), ());
        }
    }

    /// Forgets whom nothing is held against any more.
    pub(super) fn forget(&self) {
        self.addresses.retain_recent();
        self.users.retain_recent();
    }
}

/// One customer has a whole IPv6 network of 64 bits.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_counted_by_address_and_by_user() {
        let limiter = Limiter::new(3);
        let from = |last: u8| Some(IpAddr::from([10, 0, 0, last]));
        for _ in 0..3 {
            limiter.attempt("anna", from(1)).unwrap();
        }
        let wait = limiter.attempt("bert", from(1)).unwrap_err();
        assert!(
            wait > Duration::from_secs(1) && wait <= Duration::from_secs(20),
            "{wait:?}"
        );
        assert!(
            limiter.attempt("anna", from(2)).is_err(),
            "the user's are used up"
        );
        limiter.succeeded("anna", from(3));
        assert!(limiter.attempt("anna", from(3)).is_ok(), "known there");
        let v6 = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        for n in 0..3 {
            limiter.attempt(&format!("u{n}"), v6("2001:db8::1")).unwrap();
        }
        assert!(limiter.attempt("u9", v6("2001:db8::2")).is_err(), "one network");
        assert!(limiter.attempt("u9", v6("2001:db8:0:1::2")).is_ok());
        limiter.forget();
    }
}
