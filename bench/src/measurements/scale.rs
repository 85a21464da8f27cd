//! One repository that grows to a million manifests, each under its own tag: what each operation costs at each size, and
//! how long a start takes in the end.
//!
//! Beside it runs a server whose repository stays small: what the machine does meanwhile hits both.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::scripts::{Reader, one_of, read, tag, tags_page};
use super::tags::OF_FEW_MIN;
use super::{Bench, restart};
use crate::content::{Blob, BlobFamily, digest, manifest, referrer};
use crate::disk::Disk;
use crate::http::Connection;
use crate::layeryard::{LAYERYARD, Setup};
use crate::load::{Limit, delete_manifest, push_blob, put_manifest, write_load};
use crate::measure::{Demand, Measurement, Round, Row, Unit, watched};
use crate::process::Server;
use crate::say;

const REPOSITORY: &str = "bench/scale";
const CONNECTIONS: usize = 8;
const FILL_CONNECTIONS: usize = 64;
const FILL_DURATION_MAX: Duration = Duration::from_secs(1200);

/// Of each hundred manifests the first is one that others refer to, and the next ten do.
const GROUP: u64 = 100;
const REFERRERS: u64 = 10;
/// Different subjects whose referrers are asked for.
const SUBJECTS_MAX: u64 = 1000;

/// Manifests that are put and then deleted, so that a repository stays as large as it is.
const CHURN: usize = 96;
/// Where their numbers begin.
const CHURN_FROM: u64 = 5_000_000;

/// A server with one repository.
struct Store<'run> {
    server: Server,
    images: Images<'run>,
    manifests: u64,
    churned: u64,
}

/// What all manifests consist of.
struct Images<'run> {
    config: Blob<'run>,
    layer: Blob<'run>,
}

pub(super) fn one_repository(bench: &Bench) -> Result<Vec<Measurement>> {
    let disk = bench.disk()?;
    let family = BlobFamily::new(1000, 8);
    let grown = Setup::new(&bench.programs, &disk, LAYERYARD, "grown");
    let small = Setup::new(&bench.programs, &disk, LAYERYARD, "small");
    let mut stores = [
        Store::new(grown.start()?, &family)?,
        Store::new(small.start()?, &family)?,
    ];
    let sizes = bench.scale.sizes;
    let (least, most) = (sizes[0], sizes[sizes.len() - 1]);
    stores[1].grow(least)?;
    let (mut all, mut filled): (Vec<Measurement>, _) = (Vec::new(), Vec::new());
    for &size in sizes {
        let mut row = Row::new(&format!("up to {size}"));
        row.add(Unit::PerSecond, stores[0].grow(size)?);
        filled.push(row);
        let labels = labels(size, least);
        for measured in at_size(bench, &disk, &mut stores, &labels)? {
            match all.iter_mut().find(|known| known.title == measured.title) {
                Some(known) => known.rows.extend(measured.rows),
                None => all.push(measured),
            }
        }
    }
    for measurement in &mut all {
        measurement.points = sizes
            .iter()
            .map(|&size| {
                let [grown, small] = labels(size, least);
                (size, grown, small)
            })
            .collect();
    }
    let [grown_label, small_label] = labels(most, least);
    let demand = Demand::AtLeast(OF_FEW_MIN);
    let with_bar = |m: Measurement| m.with_bar(&grown_label, &small_label, demand);
    let [Store { server, .. }, _] = stores;
    let starts = restart::times(bench, &disk, &grown, server, &grown_label)?;
    let title = format!("Filling it: PUT of new manifests under new tags, c={FILL_CONNECTIONS}");
    let filled = Measurement::new(&title, Unit::PerSecond, filled);
    Ok(all.into_iter().map(with_bar).chain([filled, starts]).collect())
}

/// The repository that grows, and the one beside it.
fn labels(size: u64, least: u64) -> [String; 2] {
    [
        format!("{size} manifests"),
        format!("{least} manifests, beside {size}"),
    ]
}

fn at_size(
    bench: &Bench,
    disk: &Disk,
    stores: &mut [Store<'_>; 2],
    labels: &[String; 2],
) -> Result<Vec<Measurement>> {
    let written = churn_rounds(bench, disk, stores, labels)?;
    let stores: &[Store<'_>; 2] = stores;
    let read = |title, script: &dyn Fn(&Store<'_>) -> String| {
        let reader = |(store, label): (_, &String)| {
            let store: &Store<'_> = store;
            Reader {
                server: &store.server,
                label: label.clone(),
                script: script(store),
            }
        };
        let readers: Vec<_> = stores.iter().zip(labels).map(reader).collect();
        read(bench, disk, title, CONNECTIONS, &readers)
    };
    let pages = read("Tags page of 50, at random", &|store| {
        tags_page(REPOSITORY, store.manifests)
    })?;
    let referrers = read("Referrers of a manifest that has 10", &|store| {
        one_of(&store.referrer_lists())
    })?;
    Ok(written.into_iter().chain([pages, referrers]).collect())
}

/// PUT and DELETE, round by round. Each is timed by itself.
fn churn_rounds(
    bench: &Bench,
    disk: &Disk,
    stores: &mut [Store<'_>; 2],
    labels: &[String; 2],
) -> Result<[Measurement; 2]> {
    let rows = || labels.each_ref().map(|label| Row::new(label));
    let (mut puts, mut deletes) = (rows(), rows());
    for round in 0..=bench.scale.rounds {
        for place in 0..stores.len() {
            let index = (place + round as usize) % stores.len();
            disk.settle()?;
            let [put, delete] = stores[index].churn(bench.scale.round_duration)?;
            if round > 0 {
                puts[index].add(Unit::PerSecond, put);
                deletes[index].add(Unit::PerSecond, delete);
            }
        }
    }
    let measurement =
        |title: &str, rows: [Row; 2]| Measurement::new(title, Unit::PerSecond, rows.into_iter().collect());
    Ok([
        measurement(
            &format!("PUT of a new manifest under a new tag, c={CONNECTIONS}"),
            puts,
        ),
        measurement(
            &format!("DELETE of a manifest by digest, c={CONNECTIONS}"),
            deletes,
        ),
    ])
}

impl<'run> Store<'run> {
    fn new(server: Server, family: &'run BlobFamily) -> Result<Self> {
        let images = Images {
            config: family.next_blob(),
            layer: family.next_blob(),
        };
        let mut connection = server.connect()?;
        for blob in [&images.config, &images.layer] {
            push_blob(&mut connection, REPOSITORY, blob)?;
        }
        Ok(Self {
            server,
            images,
            manifests: 0,
            churned: 0,
        })
    }

    /// Puts manifests until there are so many.
    fn grow(&mut self, manifests: u64) -> Result<Round> {
        let next = AtomicU64::new(self.manifests);
        let (next, images) = (&next, &self.images);
        let worker = |mut connection| {
            move || {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let manifest = images.manifest(number);
                put_manifest(&mut connection, REPOSITORY, &tag(number), &manifest)
            }
        };
        let limit = Limit {
            duration: FILL_DURATION_MAX,
            operations_max: manifests - self.manifests,
        };
        let connections = self.server.connections(FILL_CONNECTIONS)?;
        let filled = watched(Some(&self.server), || {
            write_load(connections.into_iter().map(worker).collect(), limit)
        })?;
        ensure!(
            filled.work.operations == limit.operations_max,
            "{} manifests in {FILL_DURATION_MAX:?}: too slow",
            filled.work.operations
        );
        self.manifests = manifests;
        say(&format!(
            "{manifests} manifests after {:.1} s",
            filled.work.elapsed.as_secs_f64()
        ));
        Ok(filled)
    }

    /// Puts manifests and deletes them again, some at a time, so that the repository hardly grows.
    fn churn(&mut self, duration: Duration) -> Result<[Round; 2]> {
        let mut connections = self.server.connections(CONNECTIONS)?;
        let mut total: Option<[Round; 2]> = None;
        loop {
            let first = CHURN_FROM + self.churned;
            self.churned += CHURN as u64;
            let made: Vec<_> = (first..first + CHURN as u64)
                .map(|number| (tag(number), self.images.plain(number)))
                .collect();
            let put = self.each(&mut connections, &|connection, index| {
                let (tag, manifest) = &made[index];
                put_manifest(connection, REPOSITORY, tag, manifest)
            })?;
            let digests: Vec<_> = made.iter().map(|(_, manifest)| digest(manifest)).collect();
            let delete = self.each(&mut connections, &|connection, index| {
                delete_manifest(connection, REPOSITORY, &digests[index])
            })?;
            let sum = total.map_or([put, delete], |[puts, deletes]| {
                [puts.and(put), deletes.and(delete)]
            });
            if sum[0].work.elapsed + sum[1].work.elapsed > duration {
                return Ok(sum);
            }
            total = Some(sum);
        }
    }

    /// Does something for each of those that are churned.
    fn each(
        &self,
        connections: &mut [Connection],
        act: &(dyn Fn(&mut Connection, usize) -> Result<()> + Sync),
    ) -> Result<Round> {
        let next = AtomicUsize::new(0);
        let next = &next;
        let limit = Limit {
            duration: FILL_DURATION_MAX,
            operations_max: CHURN as u64,
        };
        watched(Some(&self.server), || {
            let workers = connections
                .iter_mut()
                .map(|connection| move || act(&mut *connection, next.fetch_add(1, Ordering::Relaxed)));
            write_load(workers.collect(), limit)
        })
    }

    /// Where the referrers of subjects all over the repository are listed.
    fn referrer_lists(&self) -> Vec<String> {
        let subjects = self.manifests / GROUP;
        let count = subjects.min(SUBJECTS_MAX);
        (0..count)
            .map(|index| {
                let subject = self.images.manifest(index * subjects / count * GROUP);
                format!("/v2/{REPOSITORY}/referrers/{}", digest(&subject))
            })
            .collect()
    }
}

impl Images<'_> {
    /// Manifest number so and so.
    fn manifest(&self, number: u64) -> Vec<u8> {
        match number % GROUP {
            1..=REFERRERS => {
                let subject = self.plain(number / GROUP * GROUP);
                referrer(&self.config, &number.to_string(), &subject)
            }
            _ => self.plain(number),
        }
    }

    /// One that refers to no other.
    fn plain(&self, number: u64) -> Vec<u8> {
        manifest(&self.config, &[&self.layer], &number.to_string())
    }
}
