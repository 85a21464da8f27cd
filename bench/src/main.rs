//! Measures Layeryard side by side with other programs and writes the tables of bench/README.md.
//!
//! `bench/run.sh` installs the peers, builds and starts this. Each measurement has a file system of its own, on
//! which every contestant keeps its data, and runs its contestants in turn, round by round ([`measure`]).

mod backends;
mod content;
mod disk;
mod http;
mod layeryard;
mod load;
mod machine;
mod measure;
mod measurements;
mod plot;
mod process;
mod report;
mod servers;
mod warm_memory;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Parser;

use measurements::{ALL, Bench, Group, Scale};
use report::{Failure, Report};
use servers::Programs;
use warm_memory::WarmMemory;

/// Side-by-side measurements of Layeryard and its peers.
#[derive(Debug, Parser)]
struct Arguments {
    /// The Layeryard to measure
    #[arg(long, default_value = "target/release/layeryard")]
    layeryard: PathBuf,
    /// Where tests/peers/install.sh put the peers
    #[arg(long, env = "LAYERYARD_PEERS_DIR")]
    peers: PathBuf,
    /// What to measure
    #[arg(long, value_enum, default_value_t = Group::Main)]
    group: Group,
    /// Only measurements of the group whose name contains this
    #[arg(long)]
    only: Vec<String>,
    /// Short and few rounds: for working on the bench, not for conclusions
    #[arg(long)]
    quick: bool,
    /// Keep data in new directories below DIR rather than on a fresh loop-mounted ext4
    #[arg(long, value_name = "DIR")]
    on_directory: Option<PathBuf>,
    /// Write the tables into this file, between its markers; only after a full run
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Print the names of the measurements
    #[arg(long)]
    list: bool,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.list {
        let line = |named: &measurements::Named| say(&format!("{}: {}", named.group.name(), named.name));
        ALL.iter().for_each(line);
        return Ok(ExitCode::SUCCESS);
    }
    let report = run(&arguments)?;
    writeln!(std::io::stdout(), "{}", report.to_markdown())?;
    let partial = arguments.quick || !arguments.only.is_empty();
    if let (Some(path), false) = (&arguments.report, partial) {
        report.write_into(path, arguments.group.name())?;
    }
    let missed = report.bars_missed();
    say(&format!(
        "{missed} bars missed, {} measurements failed",
        report.failures.len()
    ));
    // A missed bar is a finding; a measurement that failed is a defect of this run.
    Ok(if report.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn run(arguments: &Arguments) -> Result<Report> {
    let named =
        |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|part| name.contains(part));
    let wanted = |it: &measurements::Named| it.group == arguments.group && named(it.name);
    let chosen: Vec<_> = ALL.iter().filter(|named| wanted(named)).collect();
    ensure!(
        !chosen.is_empty(),
        "--only matches nothing of this group; --list shows the names"
    );
    let parent = arguments
        .on_directory
        .clone()
        .unwrap_or_else(|| "/var/tmp".into());
    let bench = Bench {
        programs: Programs {
            layeryard: arguments.layeryard.canonicalize()?,
            peers: arguments.peers.clone(),
        },
        scale: if arguments.quick {
            Scale::QUICK
        } else {
            Scale::FULL
        },
        memory: WarmMemory::new(&parent)?,
        parent,
        on_directory: arguments.on_directory.is_some(),
    };
    let machine = machine::describe(&bench.programs, &bench.parent, bench.on_directory)?;
    let mut report = Report {
        machine,
        ..Report::default()
    };
    for named in chosen {
        say(&format!("== {}", named.name));
        match (named.run)(&bench) {
            Ok(measurements) => report.measurements.extend(measurements),
            Err(error) => {
                say(&format!("{} failed: {error:#}", named.name));
                report.failures.push(Failure {
                    name: named.name,
                    reason: format!("{error:#}"),
                });
            }
        }
    }
    Ok(report)
}

/// Progress goes to standard error; the tables alone go to standard output.
fn say(message: &str) {
    let _ = writeln!(std::io::stderr(), "bench: {message}");
}
