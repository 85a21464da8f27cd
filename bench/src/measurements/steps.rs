//! `RUN true`: one process in new namespaces on an overlay, against `crun run` of the same file system.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use runtime::{NetworkHandle, Spec, Stdio, User, Zygote};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};
use serde_json::{Value, json};

use super::Bench;
use crate::disk::Disk;
use crate::layeryard::LAYERYARD;
use crate::load::Work;
use crate::measure::{Contestant, Demand, Measurement, Unit, measure};
use crate::process::{Server, run};

/// "At most half of crun's run."
const OF_CRUN_MAX: f64 = 0.5;

const CRUN: &str = "crun run";

/// Steps whose time a build is measured over.
const BUILD_STEPS: usize = 20;

pub(super) fn run_true(bench: &Bench) -> Result<Vec<Measurement>> {
    let disk = bench.disk()?;
    let rootfs = unpack_busybox(bench, &disk)?;
    let bundle = make_bundle(&disk, &rootfs)?;
    // The program that is measured is the one users have; its zygote is driven from here.
    let zygote = Zygote::spawn_from(&bench.programs.layeryard).context("cannot start the zygote")?;
    let scratch = disk.root().join("steps");
    let mut number = 0_u64;
    let step = |_| {
        number += 1;
        timed(|| step(&zygote, &rootfs, &scratch.join(number.to_string())))
    };
    let crun = |_| timed(|| crun_run(&bundle));
    let mut contestants = [Contestant::new(LAYERYARD, step), Contestant::new(CRUN, crun)];
    let title = "RUN true, without a network, to its exit status";
    let measurement = measure(
        title,
        Unit::Milliseconds,
        bench.scale.step_rounds,
        &disk,
        &mut contestants,
    )?;
    Ok(vec![measurement.with_bar(
        LAYERYARD,
        CRUN,
        Demand::AtMost(OF_CRUN_MAX),
    )])
}

fn timed(act: impl FnOnce() -> Result<()>) -> Result<Work> {
    let begin = Instant::now();
    act()?;
    Ok(Work {
        operations: 1,
        elapsed: begin.elapsed(),
    })
}

/// All that a worker does for a RUN, from the mount to the end.
fn step(zygote: &Zygote, rootfs: &Path, scratch: &Path) -> Result<()> {
    for directory in ["upper", "work"] {
        fs::create_dir_all(scratch.join(directory))?;
    }
    let mount = overlay(rootfs, scratch).context("cannot mount an overlay")?;
    let spec = Spec::run_step(vec!["true".into()], vec![], "/", User::root());
    let stdio = Stdio {
        stdout: null()?,
        stderr: null()?,
    };
    let exit = zygote
        .start(&spec, mount.as_fd(), stdio, &NetworkHandle::none())?
        .wait()?;
    ensure!(exit.success(), "`true` ended with {exit}");
    Ok(())
}

fn null() -> Result<OwnedFd> {
    Ok(File::options().write(true).open("/dev/null")?.into())
}

fn overlay(lower: &Path, scratch: &Path) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "lowerdir", lower)?;
    fsconfig_set_string(&context, "upperdir", scratch.join("upper"))?;
    fsconfig_set_string(&context, "workdir", scratch.join("work"))?;
    fsconfig_set_flag(&context, "userxattr")?;
    fsconfig_set_flag(&context, "volatile")?;
    fsconfig_create(&context)?;
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_NODEV,
    )
}

fn crun_run(bundle: &Path) -> Result<()> {
    let name = format!("layeryard-bench-{}", std::process::id());
    run(Command::new("crun")
        .args(["run", "--bundle"])
        .arg(bundle)
        .arg(name))?;
    Ok(())
}

/// crun's own default specification, for `true`, with the namespaces of ours.
fn make_bundle(disk: &Disk, rootfs: &Path) -> Result<PathBuf> {
    let bundle = disk.root().join("bundle");
    fs::create_dir(&bundle)?;
    run(Command::new("crun").args(["spec", "--bundle"]).arg(&bundle))?;
    let file = bundle.join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&file)?)?;
    spec["process"]["terminal"] = json!(false);
    spec["process"]["args"] = json!(["true"]);
    spec["root"] = json!({"path": rootfs, "readonly": false});
    let namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({"type": kind}));
    spec["linux"]["namespaces"] = json!(namespaces);
    fs::write(&file, spec.to_string())?;
    Ok(bundle)
}

fn unpack_busybox(bench: &Bench, disk: &Disk) -> Result<PathBuf> {
    let rootfs = disk.root().join("rootfs");
    fs::create_dir(&rootfs)?;
    run(Command::new("tar")
        .arg("-xf")
        .arg(bench.programs.busybox())
        .arg("-C")
        .arg(&rootfs))?;
    Ok(rootfs)
}

/// A RUN as users see it: with its network, its layer's commit and its cache record.
pub(super) fn build(bench: &Bench) -> Result<Vec<Measurement>> {
    let disk = bench.disk()?;
    let server = bench.programs.layeryard(&disk)?;
    let image = format!("{}/bench/busybox:1", server.address);
    run(bench
        .programs
        .command()
        .arg("import")
        .arg(bench.programs.busybox())
        .arg(&image))?;
    let (short, long) = (
        context(&disk, &image, 1)?,
        context(&disk, &image, 1 + BUILD_STEPS)?,
    );
    let act = |_| {
        let (short, long) = (
            build_once(bench, &server, &short)?,
            build_once(bench, &server, &long)?,
        );
        Ok(Work {
            operations: BUILD_STEPS as u64,
            elapsed: long.saturating_sub(short),
        })
    };
    let mut contestants = [Contestant::of(&server, act)];
    let title = "RUN true in `layeryard build`, with bridge, commit and cache record";
    Ok(vec![measure(
        title,
        Unit::Milliseconds,
        bench.scale.rounds,
        &disk,
        &mut contestants,
    )?])
}

fn context(disk: &Disk, image: &str, steps: usize) -> Result<PathBuf> {
    let directory = disk.root().join(format!("context-{steps}"));
    fs::create_dir(&directory)?;
    fs::write(
        directory.join("Dockerfile"),
        format!("FROM {image}\n{}", "RUN true\n".repeat(steps)),
    )?;
    Ok(directory)
}

fn build_once(bench: &Bench, server: &Server, context: &Path) -> Result<Duration> {
    let begin = Instant::now();
    let mut command = bench.programs.command();
    command.args([
        "build",
        "--no-cache",
        "--progress",
        "plain",
        "--server",
        &server.url(""),
    ]);
    run(command.args(["-t", "bench/steps:latest"]).arg(context))?;
    Ok(begin.elapsed())
}
