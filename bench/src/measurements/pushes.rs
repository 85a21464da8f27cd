//! Pushes of blobs nobody has, against distribution and against what the disk itself can do.

use anyhow::Result;

use super::{Bench, pulls};
use crate::content::BlobFamily;
use crate::disk::Floor;
use crate::layeryard::{LAYERYARD, LAYERYARD_ACCESS};
use crate::load::{Limit, Work, push_blob, write_load};
use crate::measure::{Contestant, Demand, Measurement, Unit, measure};
use crate::process::Server;
use crate::servers::DISTRIBUTION;

/// "At least 3 times distribution v3 where that is below the disk's own fsync rate."
const OF_DISTRIBUTION_MIN: f64 = 3.0;

const DISK: &str = "the disk itself";
const REPOSITORY: &str = "bench/push";
const CONCURRENCIES: [usize; 2] = [1, 8];

/// Bytes a round may write: bounds what a measurement takes of the disk.
const ROUND_BYTES_MAX: u64 = 1600 << 20;

pub(super) fn four_kibibytes(bench: &Bench) -> Result<Vec<Measurement>> {
    blobs(bench, "4 KiB", 4 << 10)
}

pub(super) fn one_mebibyte(bench: &Bench) -> Result<Vec<Measurement>> {
    blobs(bench, "1 MiB", 1 << 20)
}

pub(super) fn hundred_mebibytes(bench: &Bench) -> Result<Vec<Measurement>> {
    blobs(bench, "100 MiB", 100 << 20)
}

fn blobs(bench: &Bench, size: &str, size_bytes: usize) -> Result<Vec<Measurement>> {
    CONCURRENCIES
        .iter()
        .map(|&concurrency| push(bench, size, size_bytes, concurrency))
        .collect()
}

fn push(bench: &Bench, size: &str, size_bytes: usize, concurrency: usize) -> Result<Measurement> {
    let disk = bench.disk()?;
    let registries = pulls::registries(bench, &disk)?;
    let (family, floor) = (BlobFamily::new(size_bytes, 3), Floor::new(&disk)?);
    let operations_max = (ROUND_BYTES_MAX / size_bytes as u64).max(2 * concurrency as u64);
    let limit = Limit {
        duration: bench.scale.round_duration,
        operations_max,
    };
    let keep = |_| {
        let workers = (0..concurrency).map(|_| || floor.keep(&family)).collect();
        write_load(workers, limit)
    };
    let push = |registry| Contestant::of(registry, |_| push_round(registry, &family, concurrency, limit));
    let mut contestants: Vec<_> = registries.iter().map(push).collect();
    contestants.push(Contestant::new(DISK, keep));
    let title = format!("Push of {size} blobs, c={concurrency}");
    let measurement = measure(
        &title,
        Unit::PerSecond,
        bench.scale.rounds,
        &disk,
        &mut contestants,
    )?;
    let demand = Demand::AtLeast(OF_DISTRIBUTION_MIN);
    let bar = |m: Measurement, subject| m.with_bar(subject, DISTRIBUTION, demand).below(DISK);
    Ok(bar(bar(measurement, LAYERYARD), LAYERYARD_ACCESS))
}

fn push_round(server: &Server, family: &BlobFamily, concurrency: usize, limit: Limit) -> Result<Work> {
    let connections = server.connections(concurrency)?;
    let worker = |mut connection| move || push_blob(&mut connection, REPOSITORY, &family.next_blob());
    write_load(connections.into_iter().map(worker).collect(), limit)
}
