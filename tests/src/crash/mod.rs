//! The server is killed, again and again, and its word is checked: what it acknowledged is there, whole and verified;
//! what it didn't is there whole or not at all; what was left behind is accounted for.

mod builds;
mod durability;
mod ledger;
mod load;
mod pushes;
mod replicated;
mod worker;

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::harness::tell;

/// Random instants, which can be had again: `LAYERYARD_SEED=… cargo test`. tests/run.sh chooses one for the whole run.
pub(crate) fn seeded(test: &str) -> StdRng {
    let seed = match env::var("LAYERYARD_SEED") {
        Ok(seed) => seed.parse().expect("LAYERYARD_SEED is a number"),
        Err(_) => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_nanos() as u64,
    };
    tell(&format!("{test}: LAYERYARD_SEED={seed}"));
    StdRng::seed_from_u64(seed)
}

/// How many random instants: so many in every run, 1,000 in a long one (`LAYERYARD_LONG=1`), or `LAYERYARD_KILLS`.
fn instants(usual: usize) -> usize {
    match (env::var("LAYERYARD_KILLS"), env::var_os("LAYERYARD_LONG")) {
        (Ok(kills), _) => kills.parse().expect("LAYERYARD_KILLS is a number"),
        (Err(_), Some(_)) => 1_000,
        (Err(_), None) => usual,
    }
}
