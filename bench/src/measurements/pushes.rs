//! Pushes of blobs nobody has, against distribution and against what the disk itself can do.

use anyhow::Result;

use super::Bench;
use crate::content::BlobFamily;
use crate::disk::Floor;
use crate::load::{Limit, Work, push_blob, write_load};
use crate::measure::{Contestant, Measurement, Ratio, Unit, measure};
use crate::process::Server;
use crate::servers::{DISTRIBUTION, LAYERYARD};

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
    let layeryard = bench.programs.layeryard(&disk)?;
    let distribution = bench.programs.distribution(&disk)?;
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
    let mut contestants = [
        Contestant::of(&layeryard, |_| {
            push_round(&layeryard, &family, concurrency, limit)
        }),
        Contestant::of(&distribution, |_| {
            push_round(&distribution, &family, concurrency, limit)
        }),
        Contestant::new(DISK, keep),
    ];
    let title = format!("Push of {size} blobs, c={concurrency}");
    let measurement = measure(
        &title,
        Unit::PerSecond,
        bench.scale.rounds,
        &disk,
        &mut contestants,
    )?;
    Ok(measurement
        .with_bar(LAYERYARD, DISTRIBUTION, Ratio::AtLeast(OF_DISTRIBUTION_MIN))
        .below(DISK))
}

fn push_round(server: &Server, family: &BlobFamily, concurrency: usize, limit: Limit) -> Result<Work> {
    let connections: Vec<_> = (0..concurrency)
        .map(|_| server.connect())
        .collect::<Result<_>>()?;
    let worker = |mut connection| move || push_blob(&mut connection, REPOSITORY, &family.next_blob());
    write_load(connections.into_iter().map(worker).collect(), limit)
}
