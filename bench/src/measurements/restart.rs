//! How long a server takes from its start to its first answer.

use std::time::Instant;

use anyhow::Result;

use super::Bench;
use crate::disk::Disk;
use crate::layeryard::Setup;
use crate::load::Work;
use crate::measure::{Demand, Measurement, Round, Row, Unit};
use crate::process::Server;

/// "Start-up with 1,000,000 manifests under 1 s."
const START_MS_MAX: f64 = 1000.0;

const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

/// How a server came to its end, and what is left of its files in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Terminated,
    Killed,
    /// As after the machine's start.
    Forgotten,
}

/// Stops the server and starts it again on the same data, some times in each way.
pub(super) fn times(
    bench: &Bench,
    disk: &Disk,
    setup: &Setup,
    server: Server,
    label: &str,
) -> Result<Measurement> {
    let ends = [End::Terminated, End::Killed, End::Forgotten];
    let mut rows = ends.map(|end| Row::new(&end.label(label)));
    let mut server = server;
    for _ in 0..bench.scale.rounds {
        for (end, row) in ends.into_iter().zip(&mut rows) {
            match end {
                End::Killed => server.kill()?,
                End::Terminated | End::Forgotten => drop(server),
            }
            disk.settle()?;
            if end == End::Forgotten {
                std::fs::write(DROP_CACHES, "3")?;
            }
            let begin = Instant::now();
            server = setup.start()?;
            let elapsed = begin.elapsed();
            let usage = server.usage()?;
            let work = Work {
                operations: 1,
                elapsed,
            };
            row.add(
                Unit::Milliseconds,
                Round {
                    work,
                    cpu_seconds: usage.cpu_seconds,
                    rss_bytes: Some(usage.rss_bytes),
                },
            );
        }
    }
    let names: Vec<String> = rows.iter().map(|row| row.name.clone()).collect();
    let measurement = Measurement::new("From start to the first answer", Unit::Milliseconds, rows.into());
    let demand = Demand::AtMost(START_MS_MAX);
    Ok(names.iter().fold(measurement, |measurement, name| {
        measurement.with_limit(name, demand)
    }))
}

impl End {
    fn label(self, of: &str) -> String {
        match self {
            Self::Terminated => format!("{of}, after SIGTERM"),
            Self::Killed => format!("{of}, after SIGKILL"),
            Self::Forgotten => format!("{of}, after SIGTERM, nothing in the page cache"),
        }
    }
}
