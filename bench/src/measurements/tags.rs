//! What a repository's number of tags costs: few and many, otherwise the same.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Bench;
use crate::content::{BlobFamily, manifest};
use crate::disk::Disk;
use crate::load::{Limit, Work, Wrk, push_blob, put_manifest, write_load};
use crate::measure::{Contestant, Measurement, Ratio, Unit, measure};
use crate::process::Server;
use crate::say;

/// "The same rate": what is left between two rounds that do the same on a shared machine.
const OF_FEW_MIN: f64 = 0.9;

const FEW_TAGS: u64 = 100;
const CONNECTIONS: usize = 8;
const FILL_CONNECTIONS: usize = 64;
const FILL_DURATION_MAX: Duration = Duration::from_secs(300);

/// wrk asks for a random tag, in a different order each round and thread.
const SCRIPT_HEAD: &str = "local threads = 0
function setup(thread)
  threads = threads + 1
  thread:set('number', threads)
end
function init(args)
  math.randomseed(tonumber(args[1]) * 16 + number)
end
";

/// A repository with tags t000000, t000001 and so on.
struct Repository {
    label: String,
    name: String,
    tags: u64,
}

pub(super) fn few_and_many(bench: &Bench) -> Result<Vec<Measurement>> {
    let disk = bench.disk()?;
    let layeryard = bench.programs.layeryard(&disk)?;
    let family = BlobFamily::new(1000, 4);
    let repositories = [FEW_TAGS, bench.scale.many_tags].map(Repository::new);
    for repository in &repositories {
        fill(&layeryard, repository, &family)?;
    }
    let [few, many] = &repositories;
    let pages = [few.reader(few.list_script()), many.reader(many.list_script())];
    let pages = scripted(bench, &disk, &layeryard, "Tags page of 50, at random", &pages)?;
    let all = Reader {
        label: format!("{}, all of them", many.label),
        script: many.read_script(1),
    };
    let reads =
        [few, many].map(|repository| repository.reader(repository.read_script(repository.tags / FEW_TAGS)));
    let reads: Vec<_> = reads.into_iter().chain([all]).collect();
    let reads = scripted(bench, &disk, &layeryard, "GET by one of 100 tags", &reads)?;
    let writes = moves(bench, &disk, &layeryard, &repositories, &family)?;
    let bar = |m: Measurement| m.with_bar(&many.label, &few.label, Ratio::AtLeast(OF_FEW_MIN));
    Ok([pages, reads, writes].map(bar).into())
}

impl Repository {
    fn new(tags: u64) -> Self {
        Self {
            label: format!("layeryard, {tags} tags"),
            name: format!("bench/tags-{tags}"),
            tags,
        }
    }

    fn tag(number: u64) -> String {
        format!("t{number:06}")
    }

    /// Every page asked for is full, wherever it begins.
    fn list_script(&self) -> String {
        let (name, last) = (&self.name, self.tags - FEW_TAGS / 2 - 1);
        let path = format!("/v2/{name}/tags/list?n={}&last=t%06d", FEW_TAGS / 2);
        format!(
            "{SCRIPT_HEAD}function request()\n  return wrk.format('GET', string.format('{path}', math.random(0, {last})))\nend\n"
        )
    }

    /// Asks for every `step`th tag, so that as many different ones are asked for in any repository: what differs is
    /// then the repository's size and not what fits into a cache.
    fn read_script(&self, step: u64) -> String {
        let (name, last) = (&self.name, self.tags / step - 1);
        let path = format!("/v2/{name}/manifests/t%06d");
        format!(
            "{SCRIPT_HEAD}function request()
  return wrk.format('GET', string.format('{path}', math.random(0, {last}) * {step}))
end
"
        )
    }

    fn reader(&self, script: String) -> Reader {
        Reader {
            label: self.label.clone(),
            script,
        }
    }
}

/// One that reads as a Lua script says.
struct Reader {
    label: String,
    script: String,
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
            put_manifest(
                &mut connection,
                &repository.name,
                &Repository::tag(number),
                manifest,
            )
        }
    };
    let connections: Vec<_> = (0..FILL_CONNECTIONS)
        .map(|_| server.connect())
        .collect::<Result<_>>()?;
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

fn scripted(
    bench: &Bench,
    disk: &Disk,
    server: &Server,
    title: &str,
    readers: &[Reader],
) -> Result<Measurement> {
    let duration = bench.scale.round_duration;
    let mut contestants = Vec::new();
    for (number, reader) in readers.iter().enumerate() {
        let path = disk.root().join(format!("{number}.lua"));
        fs::write(&path, &reader.script).with_context(|| format!("cannot write {}", path.display()))?;
        let url = server.url("/");
        let act = move |round| {
            Wrk {
                url: &url,
                connections: CONNECTIONS,
                duration,
                script: Some((&path, round)),
            }
            .run()
        };
        contestants.push(Contestant {
            server: Some(server),
            ..Contestant::new(&reader.label, act)
        });
    }
    let title = format!("{title}, {CONNECTIONS} connections");
    measure(
        &title,
        Unit::PerSecond,
        bench.scale.rounds,
        disk,
        &mut contestants,
    )
}

/// PUT of new manifests under tags that exist, so that the number of tags stays.
fn moves(
    bench: &Bench,
    disk: &Disk,
    server: &Server,
    repositories: &[Repository; 2],
    family: &BlobFamily,
) -> Result<Measurement> {
    let limit = Limit {
        duration: bench.scale.round_duration,
        operations_max: u64::MAX,
    };
    let mut contestants = Vec::new();
    for repository in repositories {
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
            ..Contestant::new(&repository.label, act)
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
    let connections: Vec<_> = (0..CONNECTIONS)
        .map(|_| server.connect())
        .collect::<Result<_>>()?;
    let worker = |mut connection| {
        move || {
            let (number, manifest) = next();
            put_manifest(
                &mut connection,
                &repository.name,
                &Repository::tag(number),
                &manifest,
            )
        }
    };
    write_load(connections.into_iter().map(worker).collect(), limit)
}

/// A number below `count` that looks random.
fn scatter(number: u64, count: u64) -> u64 {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % count
}
