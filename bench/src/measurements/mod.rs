//! What is measured, in the order of the report.

mod manifests;
mod memory;
mod postgres;
mod pulls;
mod pushes;
mod restart;
mod scale;
mod scripts;
mod steps;
mod tags;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use crate::disk::Disk;
use crate::measure::Measurement;
use crate::servers::Programs;
use crate::warm_memory::WarmMemory;

/// What all measurements are given.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) programs: Programs,
    pub(crate) scale: Scale,
    pub(crate) memory: WarmMemory,
    /// Where fresh file systems, or with `on_directory` plain directories, are made.
    pub(crate) parent: PathBuf,
    pub(crate) on_directory: bool,
}

/// How much of everything.
#[derive(Debug)]
pub(crate) struct Scale {
    pub(crate) rounds: u64,
    pub(crate) round_duration: Duration,
    pub(crate) many_tags: u64,
    pub(crate) step_rounds: u64,
    /// Manifests in one repository, from the smallest on.
    pub(crate) sizes: &'static [u64],
    /// Size of the blobs that memory is measured with.
    pub(crate) large_blob_bytes: usize,
}

impl Scale {
    pub(crate) const FULL: Self = Self {
        rounds: 3,
        round_duration: Duration::from_secs(2),
        many_tags: 100_000,
        step_rounds: 20,
        sizes: &[100, 1_000, 10_000, 100_000, 1_000_000],
        large_blob_bytes: 1 << 30,
    };
    /// For working on the bench: its figures mean little.
    pub(crate) const QUICK: Self = Self {
        rounds: 2,
        round_duration: Duration::from_secs(1),
        many_tags: 5_000,
        step_rounds: 3,
        sizes: &[100, 1_000, 10_000],
        large_blob_bytes: 64 << 20,
    };
}

impl Bench {
    /// A disk nothing has been written to, on a machine whose memory is in use.
    pub(crate) fn disk(&self) -> Result<Disk> {
        self.memory.fill()?;
        if self.on_directory {
            Disk::directory(&self.parent)
        } else {
            Disk::fresh_ext4(&self.parent)
        }
    }
}

/// What one run measures: each group has tables of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// Pulls, pushes, tags and steps beside other programs
    Main,
    /// Replicas on PostgreSQL
    Postgres,
    /// A repository that grows to a million manifests
    Scale,
    /// Memory under large transfers
    Memory,
}

impl Group {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Postgres => "postgres",
            Self::Scale => "scale",
            Self::Memory => "memory",
        }
    }
}

/// A measurement by the name `--only` knows it by.
#[derive(Clone, Copy)]
pub(crate) struct Named {
    pub(crate) group: Group,
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Bench) -> Result<Vec<Measurement>>,
}

pub(crate) const ALL: &[Named] = &[
    named(Group::Main, "pull-1m", pulls::one_mebibyte),
    named(Group::Main, "pull-100m", pulls::hundred_mebibytes),
    named(Group::Main, "manifest", manifests::by_tag),
    named(Group::Main, "push-4k", pushes::four_kibibytes),
    named(Group::Main, "push-1m", pushes::one_mebibyte),
    named(Group::Main, "push-100m", pushes::hundred_mebibytes),
    named(Group::Main, "tags", tags::few_and_many),
    named(Group::Main, "run-true", steps::run_true),
    named(Group::Main, "build-step", steps::build),
    named(Group::Postgres, "manifest-postgres", postgres::by_tag),
    named(Group::Scale, "scale", scale::one_repository),
    named(Group::Memory, "memory", memory::large_blobs),
];

const fn named(group: Group, name: &'static str, run: fn(&Bench) -> Result<Vec<Measurement>>) -> Named {
    Named { group, name, run }
}

/// Puts a file where nginx serves it under the path a registry would.
fn publish(root: &Path, path: &str, parts: &[&[u8]]) -> Result<()> {
    let file = root.join(path.trim_start_matches('/'));
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory)?;
    }
    Ok(std::fs::write(file, parts.concat())?)
}
