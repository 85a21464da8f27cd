//! Whole process trees: killed, abandoned, many at a time.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use runtime::{Exit, NetworkHandle, Step};
use rustix::process::{Pid, Signal};

use crate::fixture::{Image, new_zygote, read, shell, zygote};

/// A command with a daemon that left its session and its parents, both holding the output open.
const DAEMONS: &str =
    "(setsid sh -c 'trap \"\" TERM HUP INT; sleep 600 & sleep 601' &); sleep 602 & echo ready; wait";

fn start_daemons(image: &Image, zygote: &runtime::Zygote) -> (Step, OwnedFd) {
    let (step, stdout, _stderr) = image
        .start(zygote, &shell(DAEMONS), &NetworkHandle::none(), 0)
        .unwrap();
    let mut ready = [0; 6];
    assert_eq!(rustix::io::read(&stdout, &mut ready).unwrap(), 6);
    (step, stdout)
}

#[test]
fn a_killed_tree_leaves_nothing() {
    let image = Image::new();
    let (step, stdout) = start_daemons(&image, zygote());
    let step = std::sync::Arc::new(step);
    let killer = std::thread::spawn({
        let step = step.clone();
        move || {
            std::thread::sleep(Duration::from_millis(50));
            step.kill();
        }
    });
    let begin = Instant::now();
    assert_eq!(step.wait().unwrap(), Exit::Signaled(libc::SIGKILL));
    killer.join().unwrap();
    // The end of the output says that nobody holds it any more; `wait` has returned, so it is there at once.
    assert_eq!(read(stdout), "");
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(
        step.wait().unwrap(),
        Exit::Signaled(libc::SIGKILL),
        "asking again is no error"
    );
    step.kill();
}

#[test]
fn children_end_with_the_command() {
    let begin = Instant::now();
    let outcome = Image::new().sh("(setsid sleep 600 &); sleep 600 & exit 3");
    assert_eq!(outcome.exit, Exit::Exited(3));
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_dropped_step_is_killed() {
    let image = Image::new();
    let (step, stdout) = start_daemons(&image, zygote());
    drop(step);
    assert_eq!(read(stdout), "");
}

#[test]
fn steps_die_with_their_zygote() {
    let image = Image::new();
    let zygote = new_zygote();
    let (step, stdout) = start_daemons(&image, &zygote);
    let pid = Pid::from_raw(zygote.pid() as i32).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    assert_eq!(read(stdout), "");
    assert!(matches!(step.wait(), Err(runtime::RuntimeError::ZygoteGone)));
    let error = image
        .start(&zygote, &shell("true"), &NetworkHandle::none(), 1)
        .unwrap_err();
    assert!(matches!(error, runtime::RuntimeError::ZygoteGone), "{error:?}");
}

#[test]
fn steps_die_with_the_last_handle_of_their_zygote() {
    let image = Image::new();
    let zygote = new_zygote();
    let (step, stdout) = start_daemons(&image, &zygote);
    drop(zygote);
    assert_eq!(read(stdout), "");
    drop(step);
}

#[test]
fn many_run_at_a_time() {
    let image = Image::new();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let image = &image;
            scope.spawn(move || {
                for round in 0..5 {
                    let spec = shell(&format!("echo {number}.{round}; exit {number}"));
                    let started = image
                        .start(zygote(), &spec, &NetworkHandle::none(), number)
                        .unwrap();
                    let (step, stdout, _stderr) = started;
                    assert_eq!(step.wait().unwrap(), Exit::Exited(number as i32));
                    assert_eq!(read(stdout), format!("{number}.{round}\n"));
                }
            });
        }
    });
}

#[test]
fn nothing_is_left_behind() {
    let image = Image::new();
    let zygote = new_zygote();
    let descriptors = |pid: u32| std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let run = || {
        let (step, _stdout, _stderr) = image
            .start(&zygote, &shell("true"), &NetworkHandle::none(), 0)
            .unwrap();
        assert!(step.wait().unwrap().success());
    };
    let before = descriptors(zygote.pid());
    (0..20).for_each(|_| run());
    // The zygote closes its ends just after it has told us.
    let deadline = Instant::now() + Duration::from_secs(5);
    while descriptors(zygote.pid()) != before && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(descriptors(zygote.pid()), before);
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", zygote.pid())).unwrap();
    assert_eq!(children, "");
}
