//! GET of a manifest by tag, against a static file of nginx.

use anyhow::{Result, ensure};

use super::{Bench, publish, pulls};
use crate::content::{BlobFamily, manifest};
use crate::load::{push_blob, put_manifest};
use crate::measure::{Measurement, Ratio, Unit, measure};
use crate::servers::{LAYERYARD, NGINX};

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
    let layeryard = bench.programs.layeryard(&disk)?;
    let distribution = bench.programs.distribution(&disk)?;
    let (nginx, root) = bench.programs.nginx(&disk)?;
    publish(&root, &path, &[&manifest])?;
    for registry in [&layeryard, &distribution] {
        let mut connection = registry.connect()?;
        for blob in layers.iter().chain([&config]) {
            push_blob(&mut connection, REPOSITORY, blob)?;
        }
        put_manifest(&mut connection, REPOSITORY, "latest", &manifest)?;
    }
    let servers = [&layeryard, &nginx, &distribution];
    for server in servers {
        let accept = [("Accept", crate::content::MANIFEST_TYPE)];
        let body = server
            .connect()?
            .request("GET", &path, &accept, &[])?
            .expect(200, server.name)?
            .body;
        ensure!(body == manifest, "{} gives another manifest", server.name);
    }
    let mut contestants = servers.map(|server| pulls::get(server, &path, CONNECTIONS, bench));
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
    Ok(vec![measurement.with_bar(
        LAYERYARD,
        NGINX,
        Ratio::AtLeast(OF_NGINX_MIN),
    )])
}
