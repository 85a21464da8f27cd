//! GET of a blob, from the page cache, against nginx with sendfile.

use anyhow::{Result, ensure};

use super::{Bench, publish};
use crate::content::BlobFamily;
use crate::load::{Wrk, push_blob};
use crate::measure::{Contestant, Measurement, Ratio, Unit, measure};
use crate::process::Server;
use crate::servers::{LAYERYARD, NGINX};

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
    let layeryard = bench.programs.layeryard(&disk)?;
    let distribution = bench.programs.distribution(&disk)?;
    let (nginx, root) = bench.programs.nginx(&disk)?;
    publish(&root, &path, &blob.parts())?;
    for registry in [&layeryard, &distribution] {
        push_blob(&mut registry.connect()?, REPOSITORY, &blob)?;
    }
    let servers = [&layeryard, &nginx, &distribution];
    for server in servers {
        let body = server
            .connect()?
            .request("GET", &path, &[], &[])?
            .expect(200, server.name)?
            .body;
        ensure!(body == blob.parts().concat(), "{} gives other bytes", server.name);
    }
    let contestant = |server| get(server, &path, connections, bench);
    let mut contestants = servers.map(contestant);
    let measurement = measure(
        title,
        Unit::PerSecond,
        bench.scale.rounds,
        &disk,
        &mut contestants,
    )?;
    Ok(vec![measurement.with_bar(
        LAYERYARD,
        NGINX,
        Ratio::AtLeast(OF_NGINX_MIN),
    )])
}

pub(super) fn get<'run>(
    server: &'run Server,
    path: &str,
    connections: usize,
    bench: &Bench,
) -> Contestant<'run> {
    let (url, duration) = (server.url(path), bench.scale.round_duration);
    Contestant::of(server, move |_| {
        Wrk {
            url: &url,
            connections,
            duration,
            script: None,
        }
        .run()
    })
}
