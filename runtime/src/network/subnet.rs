//! Addresses: a private network nobody uses, and one address of it for each step.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::link::{Mac, Prefix};

/// Size of a worker's network: 4,093 steps before an address comes again.
pub(super) const SUBNET_LENGTH: u8 = 20;

/// Where networks are looked for, the least usual ones first.
const RANGES: [Prefix; 3] = [
    (Ipv4Addr::new(10, 208, 0, 0), 12),
    (Ipv4Addr::new(172, 24, 0, 0), 13),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
];

pub(super) fn mask(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

/// Networks that overlap none of `used`, in an order that depends on `seed`, so that two workers which look at
/// the same time seldom take the same.
pub(super) fn free_subnets(used: &[Prefix], seed: u32) -> impl Iterator<Item = Prefix> {
    let step = 1 << (32 - SUBNET_LENGTH);
    RANGES.into_iter().flat_map(move |(base, length)| {
        let count = 1 << (SUBNET_LENGTH - length);
        let used = used.to_vec();
        (0..count)
            .map(move |number| {
                (
                    Ipv4Addr::from(u32::from(base) + (number + seed) % count * step),
                    SUBNET_LENGTH,
                )
            })
            .filter(move |candidate| !used.iter().any(|other| overlap(*candidate, *other)))
    })
}

pub(super) fn overlap(a: Prefix, b: Prefix) -> bool {
    let mask = mask(a.1.min(b.1));
    u32::from(a.0) & mask == u32::from(b.0) & mask
}

/// The worker's own address, which is the steps' gateway.
pub(super) fn gateway(subnet: Prefix) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.0) + 1)
}

/// An Ethernet address that belongs to an IPv4 address: what others remember of an address stays true when
/// another step has it.
pub(super) fn mac(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    // Locally administered, unicast.
    [0x02, 0x4c, a, b, c, d]
}

/// Addresses of a network in turn: one that became free is used last.
#[derive(Debug)]
pub(super) struct Allocator {
    first: u32,
    count: u32,
    next: u32,
    taken: BTreeSet<u32>,
}

impl Allocator {
    pub(super) fn new(subnet: Prefix) -> Self {
        let size = !mask(subnet.1) + 1;
        // Without the network's, the gateway's and the broadcast address.
        Self {
            first: u32::from(subnet.0) + 2,
            count: size - 3,
            next: 0,
            taken: BTreeSet::new(),
        }
    }

    /// None: all are taken.
    pub(super) fn take(&mut self) -> Option<Ipv4Addr> {
        for _ in 0..self.count {
            let address = self.first + self.next;
            self.next = (self.next + 1) % self.count;
            if self.taken.insert(address) {
                return Some(Ipv4Addr::from(address));
            }
        }
        None
    }

    pub(super) fn give_back(&mut self, address: Ipv4Addr) {
        self.taken.remove(&u32::from(address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn used_networks_are_avoided() {
        let first = free_subnets(&[], 0).next().unwrap();
        assert_eq!(first, (at("10.208.0.0"), 20));
        let used = [(at("10.208.3.7"), 32), (at("10.208.16.0"), 21)];
        assert_eq!(free_subnets(&used, 0).next().unwrap(), (at("10.208.32.0"), 20));
        let all_of_ten = [(at("10.0.0.0"), 8)];
        assert_eq!(
            free_subnets(&all_of_ten, 0).next().unwrap(),
            (at("172.24.0.0"), 20)
        );
        let private = [
            (at("10.0.0.0"), 8),
            (at("172.16.0.0"), 12),
            (at("192.168.0.0"), 16),
        ];
        assert_eq!(free_subnets(&private, 5).next(), None);
    }

    #[test]
    fn seeds_spread() {
        assert_ne!(free_subnets(&[], 1).next(), free_subnets(&[], 2).next());
        assert_eq!(
            free_subnets(&[], 1).count(),
            free_subnets(&[], u32::MAX / 8).count()
        );
    }

    #[test]
    fn addresses_come_in_turn_and_never_twice() {
        let mut allocator = Allocator::new((at("10.0.0.0"), 29));
        let all: Vec<_> = std::iter::from_fn(|| allocator.take()).collect();
        assert_eq!(
            all,
            ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"].map(at)
        );
        allocator.give_back(at("10.0.0.4"));
        assert_eq!(allocator.take(), Some(at("10.0.0.4")));
        assert_eq!(allocator.take(), None);
    }
}
