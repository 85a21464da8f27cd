//! What is measured, in the order of the report.

mod manifests;
mod pulls;
mod pushes;
mod steps;
mod tags;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::disk::Disk;
use crate::measure::Measurement;
use crate::servers::Programs;

/// What all measurements are given.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) programs: Programs,
    pub(crate) scale: Scale,
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
}

impl Scale {
    pub(crate) const FULL: Self = Self {
        rounds: 3,
        round_duration: Duration::from_secs(2),
        many_tags: 100_000,
        step_rounds: 20,
    };
    /// For working on the bench: its figures mean little.
    pub(crate) const QUICK: Self = Self {
        rounds: 2,
        round_duration: Duration::from_secs(1),
        many_tags: 5_000,
        step_rounds: 3,
    };
}

impl Bench {
    /// A disk nothing has been written to.
    pub(crate) fn disk(&self) -> Result<Disk> {
        if self.on_directory {
            Disk::directory(&self.parent)
        } else {
            Disk::fresh_ext4(&self.parent)
        }
    }
}

/// A measurement by the name `--only` knows it by.
#[derive(Clone, Copy)]
pub(crate) struct Named {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Bench) -> Result<Vec<Measurement>>,
}

pub(crate) const ALL: &[Named] = &[
    Named {
        name: "pull-1m",
        run: pulls::one_mebibyte,
    },
    Named {
        name: "pull-100m",
        run: pulls::hundred_mebibytes,
    },
    Named {
        name: "manifest",
        run: manifests::by_tag,
    },
    Named {
        name: "push-4k",
        run: pushes::four_kibibytes,
    },
    Named {
        name: "push-1m",
        run: pushes::one_mebibyte,
    },
    Named {
        name: "push-100m",
        run: pushes::hundred_mebibytes,
    },
    Named {
        name: "tags",
        run: tags::few_and_many,
    },
    Named {
        name: "run-true",
        run: steps::run_true,
    },
    Named {
        name: "build-step",
        run: steps::build,
    },
];

/// Puts a file where nginx serves it under the path a registry would.
fn publish(root: &Path, path: &str, parts: &[&[u8]]) -> Result<()> {
    let file = root.join(path.trim_start_matches('/'));
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory)?;
    }
    Ok(std::fs::write(file, parts.concat())?)
}
