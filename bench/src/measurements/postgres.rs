//! GET of a manifest by tag from replicas on PostgreSQL, while the tag moves: a replica may keep nothing in memory that
//! another one changes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};

use super::{Bench, publish};
use crate::backends::{Bucket, Postgres};
use crate::content::{BlobFamily, manifest};
use crate::disk::Disk;
use crate::layeryard::{LAYERYARD, Setup};
use crate::load::{Work, Wrk, get_manifest, push_blob, put_manifest};
use crate::measure::{Contestant, Demand, Measurement, Unit, measure};
use crate::process::Server;
use crate::say;
use crate::servers::NGINX;

/// "On PostgreSQL manifest GET at c=64 at least 0.3 of nginx."
const OF_NGINX_MIN: f64 = 0.3;

const PLAIN: &str = "layeryard, PostgreSQL";
const GUARDED: &str = "layeryard, PostgreSQL, access on";
const REPOSITORY: &str = "bench/manifest";
const CONNECTIONS: usize = 64;
const MOVE_INTERVAL: Duration = Duration::from_millis(100);

/// Replicas on one database and one bucket.
struct Replicas {
    plain: Server,
    guarded: Server,
    /// Nobody measures this one: it moves the tag.
    other: Server,
}

pub(super) fn by_tag(bench: &Bench) -> Result<Vec<Measurement>> {
    let disk = bench.disk()?;
    let (postgres, bucket) = (Postgres::start(&disk)?, Bucket::start(&bench.programs, &disk)?);
    let replicas = Replicas::start(bench, &disk, &postgres, &bucket)?;
    let (family, number) = (BlobFamily::new(1000, 5), AtomicU64::new(0));
    let [config, layers @ ..] = [(); 4].map(|()| family.next_blob());
    // Another one with each call, all of the same length.
    let next = || {
        let number = number.fetch_add(1, Ordering::Relaxed);
        manifest(&config, &layers.each_ref(), &format!("{number:06}"))
    };
    let path = format!("/v2/{REPOSITORY}/manifests/latest");
    let sqlite = bench.programs.layeryard(&disk)?;
    let (nginx, root) = bench.programs.nginx(&disk)?;
    let first = next();
    publish(&root, &path, &[&first])?;
    for registry in [&replicas.other, &sqlite] {
        let mut connection = registry.connect()?;
        for blob in layers.iter().chain([&config]) {
            push_blob(&mut connection, REPOSITORY, blob)?;
        }
        put_manifest(&mut connection, REPOSITORY, "latest", &first)?;
    }
    let moved = AtomicU64::new(0);
    let load = |server| Wrk {
        server,
        path: &path,
        connections: CONNECTIONS,
        duration: bench.scale.round_duration,
        script: None,
    };
    let still = |server| Contestant::of(server, move |_| load(server).run());
    let moving = |server| {
        let mover = Mover {
            here: &replicas.other,
            there: server,
            path: &path,
            next: &next,
            moved: &moved,
        };
        Contestant::of(server, move |_| mover.during(|| load(server).run()))
    };
    let mut contestants = [
        moving(&replicas.plain),
        moving(&replicas.guarded),
        still(&nginx),
        still(&sqlite),
    ];
    let title = format!(
        "GET of a manifest by tag ({} bytes), {CONNECTIONS} connections",
        first.len()
    );
    let measurement = measure(
        &title,
        Unit::PerSecond,
        bench.scale.rounds,
        &disk,
        &mut contestants,
    )?;
    let moved = moved.load(Ordering::Relaxed);
    say(&format!(
        "the tag was moved {moved} times under load, seen at once"
    ));
    let demand = Demand::AtLeast(OF_NGINX_MIN);
    let measurement = measurement
        .with_bar(PLAIN, NGINX, demand)
        .with_bar(GUARDED, NGINX, demand);
    Ok(vec![Measurement {
        title: format!("{title}; moved {moved} times under load"),
        ..measurement
    }])
}

impl Replicas {
    fn start(bench: &Bench, disk: &Disk, postgres: &Postgres, bucket: &Bucket) -> Result<Self> {
        let replica = |name, directory| {
            Setup::new(&bench.programs, disk, name, directory)
                .with(postgres.settings())
                .with(bucket.settings())
        };
        // The database works for whichever is asked.
        let counted = |server: Server| server.with_helper(postgres.postmaster());
        Ok(Self {
            plain: counted(replica(PLAIN, "replica-1").start()?),
            guarded: counted(replica(GUARDED, "replica-2").with_access().start()?),
            other: replica(LAYERYARD, "replica-3").start()?,
        })
    }
}

/// Moves a tag at one replica and looks at another whether it shows.
#[derive(Clone, Copy)]
struct Mover<'run> {
    here: &'run Server,
    there: &'run Server,
    path: &'run str,
    next: &'run (dyn Fn() -> Vec<u8> + Sync),
    moved: &'run AtomicU64,
}

impl Mover<'_> {
    fn during(&self, act: impl FnOnce() -> Result<Work>) -> Result<Work> {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let mover = scope.spawn(|| self.run(&done));
            let work = act();
            done.store(true, Ordering::Relaxed);
            mover.join().map_err(|_| anyhow!("the mover panicked"))??;
            work
        })
    }

    fn run(&self, done: &AtomicBool) -> Result<()> {
        let (mut here, mut there) = (self.here.connect()?, self.there.connect()?);
        while !done.load(Ordering::Relaxed) {
            let manifest = (self.next)();
            put_manifest(&mut here, REPOSITORY, "latest", &manifest)?;
            let shown = get_manifest(&mut there, self.path)?;
            ensure!(
                shown == manifest,
                "{} shows a tag as it was before it moved",
                self.there.name
            );
            self.moved.fetch_add(1, Ordering::Relaxed);
            sleep(MOVE_INTERVAL);
        }
        Ok(())
    }
}
