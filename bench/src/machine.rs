//! What the figures were measured on and with.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::process::run;
use crate::servers::{DOCKER_REGISTRY_PATH, Programs};
use crate::warm_memory::meminfo;

/// Facts in the order of the report: name and value.
pub(crate) fn describe(
    programs: &Programs,
    parent: &Path,
    on_directory: bool,
) -> Result<Vec<(&'static str, String)>> {
    let below = file_system(parent)?;
    let disk = if on_directory {
        below
    } else {
        format!("a fresh ext4 on a loop device, image on {below}")
    };
    Ok(vec![
        ("Date", date()?),
        (
            "Processor",
            format!(
                "{}, {} cores",
                processor()?,
                std::thread::available_parallelism()?
            ),
        ),
        ("Memory", format!("{} GiB", meminfo("MemTotal")? >> 30)),
        (
            "Kernel",
            fs::read_to_string("/proc/sys/kernel/osrelease")?
                .trim()
                .to_owned(),
        ),
        ("File system of all data", disk),
        ("Load when it began", load_average()?),
        (
            "Layeryard",
            format!(
                "{}, commit {}",
                first_line(programs.command().arg("version")),
                commit()
            ),
        ),
        ("nginx", first_line(Command::new("nginx").arg("-v"))),
        (
            "distribution",
            first_line(Command::new(programs.distribution_path()).arg("--version")),
        ),
        (
            "docker-registry",
            first_line(Command::new(DOCKER_REGISTRY_PATH).arg("--version")),
        ),
        ("PostgreSQL", first_line(Command::new("psql").arg("--version"))),
        ("versitygw", stamp(programs, "versitygw")),
        ("crun", first_line(Command::new("crun").arg("--version"))),
        ("wrk", first_line(Command::new("wrk").arg("-v"))),
    ])
}

fn date() -> Result<String> {
    let now = time::OffsetDateTime::now_utc();
    Ok(format!(
        "{} {:02}:{:02} UTC",
        now.date(),
        now.hour(),
        now.minute()
    ))
}

fn processor() -> Result<String> {
    let text = fs::read_to_string("/proc/cpuinfo")?;
    Ok(field(&text, "model name").unwrap_or("unknown").to_owned())
}

fn load_average() -> Result<String> {
    Ok(fs::read_to_string("/proc/loadavg")?
        .split(' ')
        .next()
        .unwrap_or_default()
        .to_owned())
}

fn field<'text>(text: &'text str, name: &str) -> Option<&'text str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

fn file_system(directory: &Path) -> Result<String> {
    let mut command = Command::new("findmnt");
    command
        .args(["--noheadings", "--output", "FSTYPE,SOURCE", "--target"])
        .arg(directory);
    Ok(run(&mut command)?
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" on "))
}

/// Version lines come on either stream, and with some programs with a failure.
fn first_line(command: &mut Command) -> String {
    let Ok(output) = command.output() else {
        return "not found".into();
    };
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text)
        .lines()
        .next()
        .unwrap_or("silent")
        .trim()
        .to_owned()
}

/// What install.sh noted of a program that doesn't know its own version.
fn stamp(programs: &Programs, name: &str) -> String {
    let stamp = fs::read_to_string(programs.peers.join("stamps").join(name));
    stamp.map_or_else(|_| "not found".into(), |text| text.trim().to_owned())
}

fn commit() -> String {
    let hash = run(Command::new("git").args(["describe", "--always", "--dirty"]));
    hash.map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
}
