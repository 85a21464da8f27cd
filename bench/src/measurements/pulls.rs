//! GET of a blob, from the page cache, against nginx with sendfile.

use anyhow::{Result, ensure};

use super::{Bench, publish};
use crate::content::BlobFamily;
use crate::disk::Disk;
use crate::layeryard::{LAYERYARD, LAYERYARD_ACCESS};
use crate::load::{Wrk, push_blob};
use crate::measure::{Contestant, Demand, Measurement, Unit, measure};
use crate::process::Server;
use crate::servers::NGINX;

/// "At least nginx with sendfile."
const OF_NGINX_MIN: f64 = 1.0;

const REPOSITORY: &str = "bench/pull";

pub(super) fn one_mebibyte(bench: &Bench) -> Result<Vec<Measurement>> {
    blob(bench, "GET of a 1 MiB blob, 8 connections", 1 << 20, 8)
}

pub(super) fn hundred_mebibytes(bench: &Bench) -> Result<Vec<Measurement>> {
    blob(bench, "GET of a 100 MiB blob, 2 connections", 100 << 20, 2)
}

fn blob(bench: &Bench, title: &str, size_bytes: usize, connections: usize) -> Result<Vec<Measurement>> {
    let disk = bench.disk()?;
    let family = BlobFamily::new(size_bytes, 1);
    let blob = family.next_blob();
    let path = format!("/v2/{REPOSITORY}/blobs/{}", blob.digest);
    let registries = registries(bench, &disk)?;
    let (nginx, root) = bench.programs.nginx(&disk)?;
    publish(&root, &path, &blob.parts())?;
    for registry in &registries {
        push_blob(&mut registry.connect()?, REPOSITORY, &blob)?;
    }
    let servers: Vec<&Server> = registries.iter().chain([&nginx]).collect();
    for server in &servers {
        let body = server
            .connect()?
            .request("GET", &path, &[], &[])?
            .expect(200, server.name)?
            .body;
        ensure!(body == blob.parts().concat(), "{} gives other bytes", server.name);
    }
    let contestant = |server| get(server, &path, connections, bench);
    let mut contestants: Vec<_> = servers.into_iter().map(contestant).collect();
    let measurement = measure(
        title,
        Unit::PerSecond,
        bench.scale.rounds,
        &disk,
        &mut contestants,
    )?;
    Ok(vec![with_bars(measurement, NGINX, Demand::AtLeast(OF_NGINX_MIN))])
}

/// All that store and serve images.
pub(super) fn registries(bench: &Bench, disk: &Disk) -> Result<[Server; 4]> {
    let programs = &bench.programs;
    Ok([
        programs.layeryard(disk)?,
        programs.layeryard_with_access(disk)?,
        programs.distribution(disk)?,
        programs.docker_registry(disk)?,
    ])
}

/// The same is demanded with access control.
pub(super) fn with_bars(measurement: Measurement, against: &str, demand: Demand) -> Measurement {
    measurement
        .with_bar(LAYERYARD, against, demand)
        .with_bar(LAYERYARD_ACCESS, against, demand)
}

pub(super) fn get<'run>(
    server: &'run Server,
    path: &'run str,
    connections: usize,
    bench: &Bench,
) -> Contestant<'run> {
    let duration = bench.scale.round_duration;
    Contestant::of(server, move |_| {
        Wrk {
            server,
            path,
            connections,
            duration,
            script: None,
        }
        .run()
    })
}
