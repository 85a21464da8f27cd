//! Time from a specification to the exit status of `true`, run by run:
//! `run_true [--bridge] [ROOTFS] [RUNS] [step]` prints one number of milliseconds a line; with `step` it waits
//! for a line of input before each run, so that runs of another program can come between.
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "zygote") {
        runtime::zygote_main()
    }
    let bridge = arguments.first().is_some_and(|first| first == "--bridge");
    arguments.drain(..usize::from(bridge));
    let rootfs = arguments.first().map_or("/tmp/run-true/rootfs", String::as_str);
    let runs: usize = arguments.get(1).map_or(Ok(100), |text| text.parse())?;
    let interleaved = arguments.get(2).is_some_and(|mode| mode == "step");
    let zygote = runtime::Zygote::spawn()?;
    // Beside the root: making an overlay on a busy disk can take longer than the step.
    let parent = Path::new(rootfs).parent().unwrap_or(Path::new("/"));
    let scratch = parent.join(format!("run-true-{}", std::process::id()));
    let (kind, network) = if bridge {
        let resolver = runtime::network::Resolver::of_this_machine();
        let config = runtime::network::BridgeConfig {
            id: scratch.display().to_string(),
            resolver,
            denied: vec![],
        };
        let bridge = runtime::network::Bridge::start(&config)?;
        (runtime::Network::Bridge, runtime::NetworkHandle::bridge(bridge))
    } else {
        (runtime::Network::None, runtime::NetworkHandle::none())
    };
    for run in 0..runs {
        let step = scratch.join(run.to_string());
        for directory in ["upper", "work"] {
            std::fs::create_dir_all(step.join(directory))?;
        }
        if interleaved {
            std::io::stdin().read_line(&mut String::new())?;
        }
        let begin = Instant::now();
        let mount = overlay(Path::new(rootfs), &step)?;
        let mut spec = runtime::Spec::run_step(vec!["true".into()], vec![], "/", runtime::User::root());
        spec.network = kind;
        let stdio = runtime::Stdio {
            stdout: null()?,
            stderr: rustix::io::dup(std::io::stderr().as_fd())?,
        };
        let exit = zygote.start(&spec, mount.as_fd(), stdio, &network)?.wait()?;
        println!("{:.3}", begin.elapsed().as_secs_f64() * 1000.0);
        if !exit.success() {
            return Err(exit.to_string().into());
        }
    }
    std::fs::remove_dir_all(scratch)?;
    Ok(())
}

fn null() -> std::io::Result<OwnedFd> {
    Ok(std::fs::File::options().write(true).open("/dev/null")?.into())
}

fn overlay(lower: &Path, step: &Path) -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "lowerdir", lower)?;
    rustix::mount::fsconfig_set_string(&context, "upperdir", step.join("upper"))?;
    rustix::mount::fsconfig_set_string(&context, "workdir", step.join("work"))?;
    rustix::mount::fsconfig_set_flag(&context, "userxattr")?;
    rustix::mount::fsconfig_set_flag(&context, "volatile")?;
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_NODEV,
    )
}
