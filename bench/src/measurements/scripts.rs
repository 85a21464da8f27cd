//! Reading what a Lua script of wrk asks for: another path with each request.

use std::fs;

use anyhow::{Context, Result};

use super::Bench;
use crate::disk::Disk;
use crate::load::Wrk;
use crate::measure::{Contestant, Measurement, Unit, measure};
use crate::process::Server;

/// Tags on a page that is asked for.
pub(super) const PAGE_TAGS: u64 = 50;

/// wrk asks for a random one, in a different order each round and thread.
const HEAD: &str = "local threads = 0
function setup(thread)
  threads = threads + 1
  thread:set('number', threads)
end
function init(args)
  math.randomseed(tonumber(args[1]) * 16 + number)
end
";

/// One that reads as a script says.
pub(super) struct Reader<'run> {
    pub(super) server: &'run Server,
    pub(super) label: String,
    pub(super) script: String,
}

/// The tags of a repository are t0000000, t0000001 and so on.
pub(super) fn tag(number: u64) -> String {
    format!("t{number:07}")
}

/// Every page asked for is full, wherever it begins.
pub(super) fn tags_page(repository: &str, tags: u64) -> String {
    let last = tags - PAGE_TAGS - 1;
    let path = format!("/v2/{repository}/tags/list?n={PAGE_TAGS}&last=t%07d");
    request(&format!("string.format('{path}', math.random(0, {last}))"))
}

/// Asks for every `step`th tag.
pub(super) fn manifest_by_tag(repository: &str, tags: u64, step: u64) -> String {
    let last = tags / step - 1;
    let path = format!("/v2/{repository}/manifests/t%07d");
    request(&format!(
        "string.format('{path}', math.random(0, {last}) * {step})"
    ))
}

/// One of these paths.
pub(super) fn one_of(paths: &[String]) -> String {
    let list: Vec<String> = paths.iter().map(|path| format!("  '{path}',\n")).collect();
    let script = request(&format!("paths[math.random(1, {})]", paths.len()));
    format!("local paths = {{\n{}}}\n{script}", list.concat())
}

fn request(path: &str) -> String {
    format!("{HEAD}function request()\n  return wrk.format('GET', {path})\nend\n")
}

pub(super) fn read(
    bench: &Bench,
    disk: &Disk,
    title: &str,
    connections: usize,
    readers: &[Reader<'_>],
) -> Result<Measurement> {
    let duration = bench.scale.round_duration;
    let mut contestants = Vec::new();
    for (number, reader) in readers.iter().enumerate() {
        let script = disk.root().join(format!("{number}.lua"));
        fs::write(&script, &reader.script).with_context(|| format!("cannot write {}", script.display()))?;
        let act = move |round| {
            Wrk {
                server: reader.server,
                path: "/",
                connections,
                duration,
                script: Some((&script, round)),
            }
            .run()
        };
        contestants.push(Contestant {
            server: Some(reader.server),
            ..Contestant::new(&reader.label, act)
        });
    }
    let title = format!("{title}, {connections} connections");
    measure(
        &title,
        Unit::PerSecond,
        bench.scale.rounds,
        disk,
        &mut contestants,
    )
}
