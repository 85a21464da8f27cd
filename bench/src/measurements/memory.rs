//! Memory of a server under many large transfers at once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::Bench;
use crate::backends::Bucket;
use crate::content::BlobFamily;
use crate::disk::Disk;
use crate::http::Connection;
use crate::layeryard::{LAYERYARD, Setup};
use crate::load::{Limit, Work, push_blob, write_load};
use crate::measure::{Demand, Measurement, Row, Unit, watched};
use crate::process::Server;
use crate::servers::DISTRIBUTION;

/// "RSS under 64 MiB at c=64 with 1 GiB blobs on the filesystem, under 128 MiB on S3."
const FILESYSTEM_MIB_MAX: f64 = 64.0;
const S3_MIB_MAX: f64 = 128.0;

const LAYERYARD_S3: &str = "layeryard, S3";
const REPOSITORY: &str = "bench/memory";
const TRANSFERS: usize = 64;
/// The others GET meanwhile: the disk has no room for more.
const PUSHES: usize = 32;
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
const DURATION_MAX: Duration = Duration::from_secs(3600);

/// A server that is started anew for each kind of transfer.
struct Subject<'run> {
    name: &'static str,
    start: &'run dyn Fn() -> Result<Server>,
    /// What is pushed under load.
    pushed: &'run BlobFamily,
}

/// Both kinds of transfers.
struct Tables {
    reads: Table,
    mixed: Table,
}

#[derive(Default)]
struct Table {
    memory: Vec<Row>,
    rates: Vec<Row>,
}

pub(super) fn large_blobs(bench: &Bench) -> Result<Vec<Measurement>> {
    let size = bench.scale.large_blob_bytes;
    let whole = BlobFamily::new(size, 6);
    // The gateway writes every part twice, and the disk has room for one such run.
    let half = BlobFamily::new(size / 2, 7);
    let mut tables = Tables {
        reads: Table::default(),
        mixed: Table::default(),
    };
    let mut measure = |disk: &Disk, name, start: &dyn Fn() -> Result<Server>, pushed| {
        let subject = Subject { name, start, pushed };
        subject.measure(disk, &whole, &mut tables)
    };
    {
        let disk = bench.disk()?;
        let setup = Setup::new(&bench.programs, &disk, LAYERYARD, "layeryard");
        measure(&disk, LAYERYARD, &|| setup.start(), &whole)?;
    }
    {
        let disk = bench.disk()?;
        measure(
            &disk,
            DISTRIBUTION,
            &|| bench.programs.distribution(&disk),
            &whole,
        )?;
    }
    {
        let disk = bench.disk()?;
        let bucket = Bucket::start(&bench.programs, &disk)?;
        let setup = Setup::new(&bench.programs, &disk, LAYERYARD_S3, "layeryard");
        let setup = setup.with(bucket.settings());
        measure(&disk, LAYERYARD_S3, &|| setup.start(), &half)?;
    }
    let mebibytes = size >> 20;
    let reads = format!("{TRANSFERS} GETs of {mebibytes} MiB at once");
    let mixed = format!(
        "{PUSHES} pushes of {mebibytes} MiB (S3: {}) and {} GETs at once",
        mebibytes / 2,
        TRANSFERS - PUSHES
    );
    let tables = [tables.reads.finish(&reads), tables.mixed.finish(&mixed)];
    Ok(tables.into_iter().flatten().collect())
}

impl Subject<'_> {
    fn measure(&self, disk: &Disk, family: &BlobFamily, tables: &mut Tables) -> Result<()> {
        let server = (self.start)()?;
        let blob = family.next_blob();
        push_blob(&mut server.connect()?, REPOSITORY, &blob)?;
        drop(server);
        let path = format!("/v2/{REPOSITORY}/blobs/{}", blob.digest);
        let size_bytes = blob.size_bytes() as u64;
        let read = |server: &Server| read(server, &path, size_bytes);
        self.observe(disk, &mut tables.reads, read)?;
        let mixed = |server: &Server| push_and_read(server, self.pushed, &path, size_bytes);
        self.observe(disk, &mut tables.mixed, mixed)
    }

    fn observe(
        &self,
        disk: &Disk,
        table: &mut Table,
        act: impl FnOnce(&Server) -> Result<Work>,
    ) -> Result<()> {
        disk.settle()?;
        let server = (self.start)()?;
        let mut peak = 0;
        let round = watched(Some(&server), || {
            let (work, most) = peak_during(&server, || act(&server))?;
            peak = most;
            Ok(work)
        })?;
        let mut rate = Row::new(self.name);
        rate.add(Unit::PerSecond, round);
        table.rates.push(rate);
        let high_water = format!("{}, VmHWM of its first process", self.name);
        let figures = [
            (self.name, peak),
            (high_water.as_str(), server.high_water_bytes()?),
        ];
        table.memory.extend(figures.map(|(name, bytes)| Row {
            samples: vec![bytes as f64 / f64::from(1 << 20)],
            ..Row::new(name)
        }));
        Ok(())
    }
}

impl Table {
    fn finish(self, title: &str) -> [Measurement; 2] {
        let memory = format!("Peak of resident memory, {title}");
        let memory = Measurement::new(&memory, Unit::Mebibytes, self.memory)
            .with_limit(LAYERYARD, Demand::AtMost(FILESYSTEM_MIB_MAX))
            .with_limit(LAYERYARD_S3, Demand::AtMost(S3_MIB_MAX));
        let rates = Measurement::new(&format!("Transfers, {title}"), Unit::PerSecond, self.rates);
        [memory, rates]
    }
}

/// The most memory that all processes of a server had together while something ran.
fn peak_during<T>(server: &Server, act: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| -> Result<u64> {
            let mut peak = 0;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(server.usage()?.rss_bytes);
                sleep(SAMPLE_INTERVAL);
            }
            Ok(peak)
        });
        let result = act();
        done.store(true, Ordering::Relaxed);
        let peak = watcher.join().map_err(|_| anyhow!("the watcher panicked"))??;
        Ok((result?, peak))
    })
}

fn read(server: &Server, path: &str, size_bytes: u64) -> Result<Work> {
    let worker = |mut connection: Connection| move || connection.drain(path, size_bytes);
    let workers = server.connections(TRANSFERS)?.into_iter().map(worker);
    let limit = Limit {
        duration: DURATION_MAX,
        operations_max: TRANSFERS as u64,
    };
    write_load(workers.collect(), limit)
}

/// As long as pushes run, each GET is followed by another.
fn push_and_read(server: &Server, family: &BlobFamily, path: &str, size_bytes: u64) -> Result<Work> {
    let (done, reads, begin) = (AtomicBool::new(false), AtomicU64::new(0), Instant::now());
    let read = |mut connection: Connection| -> Result<()> {
        while !done.load(Ordering::Relaxed) {
            connection.drain(path, size_bytes)?;
            reads.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    let read = &read;
    std::thread::scope(|scope| {
        let connections = server.connections(TRANSFERS - PUSHES)?;
        let readers: Vec<_> = connections
            .into_iter()
            .map(|connection| scope.spawn(move || read(connection)))
            .collect();
        let worker = |mut connection| move || push_blob(&mut connection, REPOSITORY, &family.next_blob());
        let limit = Limit {
            duration: DURATION_MAX,
            operations_max: PUSHES as u64,
        };
        let pushed = server
            .connections(PUSHES)
            .and_then(|connections| write_load(connections.into_iter().map(worker).collect(), limit));
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().map_err(|_| anyhow!("a reader panicked"))??;
        }
        Ok(Work {
            operations: pushed?.operations + reads.load(Ordering::Relaxed),
            elapsed: begin.elapsed(),
        })
    })
}
