//! What a repository's number of tags costs: few and many, otherwise the same.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Bench;
use super::scripts::{Reader, manifest_by_tag, read, tag, tags_page};
use crate::content::{BlobFamily, manifest};
use crate::disk::Disk;
use crate::layeryard::{LAYERYARD, LAYERYARD_ACCESS, Setup};
use crate::load::{Limit, Work, push_blob, put_manifest, write_load};
use crate::measure::{Contestant, Demand, Measurement, Unit, measure};
use crate::process::{Server, run};
use crate::say;

/// "The same rate": what is left between two rounds that do the same on a shared machine.
pub(super) const OF_FEW_MIN: f64 = 0.9;

const FEW_TAGS: u64 = 100;
const CONNECTIONS: usize = 8;
const FILL_CONNECTIONS: usize = 64;
const FILL_DURATION_MAX: Duration = Duration::from_secs(300);

struct Repository {
    name: String,
    tags: u64,
}

pub(super) fn few_and_many(bench: &Bench) -> Result<Vec<Measurement>> {
    let disk = bench.disk()?;
    let family = BlobFamily::new(1000, 4);
    let repositories = [FEW_TAGS, bench.scale.many_tags].map(Repository::new);
    let servers = filled(bench, &disk, &repositories, &family)?;
    let read = |title, script: &dyn Fn(&Repository) -> String| {
        let reader = |server, repository: &Repository| Reader {
            server,
            label: label(server, repository),
            script: script(repository),
        };
        let of_server = |server| {
            repositories
                .iter()
                .map(move |repository| reader(server, repository))
        };
        let readers: Vec<_> = servers.iter().flat_map(of_server).collect();
        read(bench, &disk, title, CONNECTIONS, &readers)
    };
    let pages = read("Tags page of 50, at random", &|it| tags_page(&it.name, it.tags))?;
    // As many different ones are asked for in any repository: what differs is then the repository's size and not what
    // fits into a cache.
    let reads = read("GET by one of 100 tags", &|it| {
        manifest_by_tag(&it.name, it.tags, it.tags / FEW_TAGS)
    })?;
    let all = read("GET by any tag", &|it| manifest_by_tag(&it.name, it.tags, 1))?;
    let writes = moves(bench, &disk, &servers, &repositories, &family)?;
    let [few, many] = &repositories;
    let with_bars = |measurement: Measurement| {
        servers.iter().fold(measurement, |measurement, server| {
            measurement.with_bar(
                &label(server, many),
                &label(server, few),
                Demand::AtLeast(OF_FEW_MIN),
            )
        })
    };
    Ok(vec![with_bars(pages), with_bars(reads), all, with_bars(writes)])
}

impl Repository {
    fn new(tags: u64) -> Self {
        Self {
            name: format!("bench/tags-{tags}"),
            tags,
        }
    }
}

fn label(server: &Server, repository: &Repository) -> String {
    format!("{}, {} tags", server.name, repository.tags)
}

/// Two servers with the same repositories, each on its own copy of the data.
fn filled(
    bench: &Bench,
    disk: &Disk,
    repositories: &[Repository],
    family: &BlobFamily,
) -> Result<[Server; 2]> {
    let plain = Setup::new(&bench.programs, disk, LAYERYARD, "layeryard");
    let guarded = Setup::new(&bench.programs, disk, LAYERYARD_ACCESS, "layeryard-access").with_access();
    let server = plain.start()?;
    for repository in repositories {
        fill(&server, repository, family)?;
    }
    drop(server);
    std::fs::create_dir_all(guarded.data())?;
    run(Command::new("cp")
        .args(["--archive", "--no-target-directory"])
        .args([plain.data(), guarded.data()]))?;
    Ok([plain.start()?, guarded.start()?])
}

/// One manifest under many tags, through the API.
fn fill(server: &Server, repository: &Repository, family: &BlobFamily) -> Result<()> {
    let (config, layer) = (family.next_blob(), family.next_blob());
    let manifest = manifest(&config, &[&layer], "tags");
    let mut connection = server.connect()?;
    push_blob(&mut connection, &repository.name, &config)?;
    push_blob(&mut connection, &repository.name, &layer)?;
    let (next, begin) = (AtomicU64::new(0), Instant::now());
    let (next, manifest) = (&next, &manifest);
    let worker = |mut connection| {
        move || {
            let number = next.fetch_add(1, Ordering::Relaxed);
            put_manifest(&mut connection, &repository.name, &tag(number), manifest)
        }
    };
    let connections = server.connections(FILL_CONNECTIONS)?;
    let limit = Limit {
        duration: FILL_DURATION_MAX,
        operations_max: repository.tags,
    };
    let work = write_load(connections.into_iter().map(worker).collect(), limit)?;
    ensure!(
        work.operations == repository.tags,
        "{} tags in {FILL_DURATION_MAX:?}: too slow",
        work.operations
    );
    say(&format!(
        "{} tags put in {:.1} s",
        repository.tags,
        begin.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// PUT of new manifests under tags that exist, so that the number of tags stays.
fn moves(
    bench: &Bench,
    disk: &Disk,
    servers: &[Server],
    repositories: &[Repository],
    family: &BlobFamily,
) -> Result<Measurement> {
    let limit = Limit {
        duration: bench.scale.round_duration,
        operations_max: u64::MAX,
    };
    let mut contestants = Vec::new();
    for (server, repository) in servers
        .iter()
        .flat_map(|server| repositories.iter().map(move |it| (server, it)))
    {
        let (config, layer) = (family.next_blob(), family.next_blob());
        let mut connection = server.connect()?;
        push_blob(&mut connection, &repository.name, &config)?;
        push_blob(&mut connection, &repository.name, &layer)?;
        let next = AtomicU64::new(0);
        let act = move |_| {
            let (next, config, layer) = (&next, &config, &layer);
            move_tags(server, repository, limit, &|| {
                let number = next.fetch_add(1, Ordering::Relaxed);
                (
                    scatter(number, repository.tags),
                    manifest(config, &[layer], &number.to_string()),
                )
            })
        };
        contestants.push(Contestant {
            server: Some(server),
            ..Contestant::new(label(server, repository), act)
        });
    }
    let title = format!("PUT of a new manifest under a random tag, c={CONNECTIONS}");
    measure(
        &title,
        Unit::PerSecond,
        bench.scale.rounds,
        disk,
        &mut contestants,
    )
}

fn move_tags(
    server: &Server,
    repository: &Repository,
    limit: Limit,
    next: &(dyn Fn() -> (u64, Vec<u8>) + Sync),
) -> Result<Work> {
    let worker = |mut connection| {
        move || {
            let (number, manifest) = next();
            put_manifest(&mut connection, &repository.name, &tag(number), &manifest)
        }
    };
    let connections = server.connections(CONNECTIONS)?;
    write_load(connections.into_iter().map(worker).collect(), limit)
}

/// A number below `count` that looks random.
fn scatter(number: u64, count: u64) -> u64 {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % count
}
