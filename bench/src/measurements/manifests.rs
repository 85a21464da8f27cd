//! GET of a manifest by tag, against a static file of nginx.

use anyhow::{Result, ensure};

use super::{Bench, publish, pulls};
use crate::content::{BlobFamily, manifest};
use crate::load::{get_manifest, push_blob, put_manifest};
use crate::measure::{Demand, Measurement, Unit, measure};
use crate::process::Server;
use crate::servers::NGINX;

/// "At least 0.7 of nginx's rate for a static file of the same size."
const OF_NGINX_MIN: f64 = 0.7;

const REPOSITORY: &str = "bench/manifest";
const CONNECTIONS: usize = 8;

pub(super) fn by_tag(bench: &Bench) -> Result<Vec<Measurement>> {
    let disk = bench.disk()?;
    let family = BlobFamily::new(1000, 2);
    let [config, layers @ ..] = [(); 4].map(|()| family.next_blob());
    let manifest = manifest(&config, &layers.each_ref(), "latest");
    let path = format!("/v2/{REPOSITORY}/manifests/latest");
    let registries = pulls::registries(bench, &disk)?;
    let (nginx, root) = bench.programs.nginx(&disk)?;
    publish(&root, &path, &[&manifest])?;
    for registry in &registries {
        let mut connection = registry.connect()?;
        for blob in layers.iter().chain([&config]) {
            push_blob(&mut connection, REPOSITORY, blob)?;
        }
        put_manifest(&mut connection, REPOSITORY, "latest", &manifest)?;
    }
    let servers: Vec<&Server> = registries.iter().chain([&nginx]).collect();
    for server in &servers {
        let body = get_manifest(&mut server.connect()?, &path)?;
        ensure!(body == manifest, "{} gives another manifest", server.name);
    }
    let contestant = |server| pulls::get(server, &path, CONNECTIONS, bench);
    let mut contestants: Vec<_> = servers.into_iter().map(contestant).collect();
    let title = format!(
        "GET of a manifest by tag ({} bytes), {CONNECTIONS} connections",
        manifest.len()
    );
    let measurement = measure(
        &title,
        Unit::PerSecond,
        bench.scale.rounds,
        &disk,
        &mut contestants,
    )?;
    Ok(vec![pulls::with_bars(
        measurement,
        NGINX,
        Demand::AtLeast(OF_NGINX_MIN),
    )])
}
