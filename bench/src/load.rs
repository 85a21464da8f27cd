//! Load: wrk for reading, threads with their own connections for writing.

use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::content::{Blob, MANIFEST_TYPE};
use crate::http::{Connection, location_with};
use crate::process::{Server, run};

/// What a round did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) operations: u64,
    pub(crate) elapsed: Duration,
}

/// When a writing round ends: at the first of both.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    pub(crate) duration: Duration,
    pub(crate) operations_max: u64,
}

/// Runs one thread per worker until the limit. The clock starts when all are there, and stops with the last.
pub(crate) fn write_load<W>(workers: Vec<W>, limit: Limit) -> Result<Work>
where
    W: FnMut() -> Result<()> + Send,
{
    let (barrier, started) = (Barrier::new(workers.len() + 1), AtomicU64::new(0));
    let (barrier, started) = (&barrier, &started);
    std::thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .map(|mut worker| {
                scope.spawn(move || -> Result<u64> {
                    barrier.wait();
                    let begin = Instant::now();
                    let mut done = 0;
                    while begin.elapsed() < limit.duration
                        && started.fetch_add(1, Ordering::Relaxed) < limit.operations_max
                    {
                        worker()?;
                        done += 1;
                    }
                    Ok(done)
                })
            })
            .collect();
        barrier.wait();
        let begin = Instant::now();
        let mut operations = 0;
        for thread in threads {
            operations += thread.join().map_err(|_| anyhow!("a worker panicked"))??;
        }
        Ok(Work {
            operations,
            elapsed: begin.elapsed(),
        })
    })
}

/// As Docker and containerd push a blob: POST for an upload, PUT of all bytes with the digest.
pub(crate) fn push_blob(connection: &mut Connection, repository: &str, blob: &Blob<'_>) -> Result<()> {
    let opened = connection.request("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], &[])?;
    let location = opened
        .expect(202, "opening an upload")?
        .location
        .context("no Location of an upload")?;
    let path = location_with(&location, &format!("digest={}", blob.digest));
    let kept = connection.request(
        "PUT",
        &path,
        &[("Content-Type", "application/octet-stream")],
        &blob.parts(),
    )?;
    kept.expect(201, "keeping a blob")?;
    Ok(())
}

pub(crate) fn put_manifest(
    connection: &mut Connection,
    repository: &str,
    reference: &str,
    manifest: &[u8],
) -> Result<()> {
    let path = format!("/v2/{repository}/manifests/{reference}");
    connection
        .request("PUT", &path, &[("Content-Type", MANIFEST_TYPE)], &[manifest])?
        .expect(201, "keeping a manifest")?;
    Ok(())
}

pub(crate) fn delete_manifest(connection: &mut Connection, repository: &str, digest: &str) -> Result<()> {
    let path = format!("/v2/{repository}/manifests/{digest}");
    connection
        .request("DELETE", &path, &[], &[])?
        .expect(202, "deleting a manifest")?;
    Ok(())
}

pub(crate) fn get_manifest(connection: &mut Connection, path: &str) -> Result<Vec<u8>> {
    let answer = connection.request("GET", path, &[("Accept", MANIFEST_TYPE)], &[])?;
    Ok(answer.expect(200, "reading a manifest")?.body)
}

/// One run of wrk.
#[derive(Debug)]
pub(crate) struct Wrk<'run> {
    pub(crate) server: &'run Server,
    pub(crate) path: &'run str,
    pub(crate) connections: usize,
    pub(crate) duration: Duration,
    /// A Lua script and the number it is given.
    pub(crate) script: Option<(&'run std::path::Path, u64)>,
}

impl Wrk<'_> {
    const THREADS: usize = 2;

    pub(crate) fn run(&self) -> Result<Work> {
        let seconds = self.duration.as_secs().max(1);
        // wrk has no limit of its own for a server that hangs.
        let mut command = Command::new("timeout");
        command.args([
            "--kill-after=5",
            &(seconds + 30).to_string(),
            "wrk",
            "--timeout",
            "20s",
        ]);
        command.arg(format!("-t{}", Self::THREADS.min(self.connections)));
        command.arg(format!("-c{}", self.connections));
        command.arg(format!("-d{seconds}s"));
        command.arg("-H").arg(format!("Accept: {MANIFEST_TYPE}"));
        if let Some(authorization) = self.server.authorization {
            command.arg("-H").arg(format!("Authorization: {authorization}"));
        }
        let url = self.server.url(self.path);
        match self.script {
            Some((path, number)) => command
                .arg("-s")
                .arg(path)
                .args([&url, "--", &number.to_string()]),
            None => command.arg(url),
        };
        parse_wrk(&run(&mut command)?)
    }
}

fn parse_wrk(output: &str) -> Result<Work> {
    for line in output.lines().map(str::trim) {
        if line.starts_with("Non-2xx") || line.starts_with("Socket errors") {
            bail!("wrk met errors: {line}");
        }
    }
    let rate = output.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    let rate: f64 = rate.context("wrk printed no rate")?.trim().parse()?;
    let requests = output.lines().find_map(|line| line.split_once(" requests in "));
    let operations: u64 = requests.context("wrk printed no count")?.0.trim().parse()?;
    ensure!(operations > 0 && rate > 0.0, "no request was answered in time");
    Ok(Work {
        operations,
        elapsed: Duration::from_secs_f64(operations as f64 / rate),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_read() {
        let output =
            "Running 1s test @ http://h/\n  5010 requests in 1.10s, 45.22MB read\nRequests/sec:   4554.55\n";
        let work = parse_wrk(output).expect("parses");
        assert_eq!(work.operations, 5010);
        assert!((work.elapsed.as_secs_f64() - 1.1).abs() < 0.001, "{work:?}");
        let failed = format!("{output}  Non-2xx or 3xx responses: 3\n");
        assert!(parse_wrk(&failed).is_err());
    }

    #[test]
    fn a_limit_of_operations_holds_across_threads() {
        let limit = Limit {
            duration: Duration::from_secs(5),
            operations_max: 7,
        };
        let work = write_load(vec![|| Ok(()), || Ok(())], limit).expect("runs");
        assert_eq!(work.operations, 7);
    }
}
