//! What a command is given, and what comes back.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;

use runtime::{Exit, Mount, MountKind, Spec, User};

use crate::fixture::{Image, field, shell};

#[test]
fn output_and_exit_code_are_passed_through() {
    let outcome = Image::new().sh("echo out; echo err >&2; exit 7");
    assert_eq!(outcome.stdout, "out\n");
    assert_eq!(outcome.stderr, "err\n");
    assert_eq!(outcome.exit, Exit::Exited(7));
}

#[test]
fn signals_are_told_from_codes() {
    let image = Image::new();
    let nested = image.sh("sh -c 'kill -TERM $$'; exit $?");
    assert_eq!(nested.exit, Exit::Exited(143));
    // A signal nobody sent can't be ignored, not even by the first process of a namespace.
    fs::write(image.path("crash"), CRASH).unwrap();
    fs::set_permissions(image.path("crash"), fs::Permissions::from_mode(0o755)).unwrap();
    let crash = image.run(&Spec::run_step(vec!["/crash".into()], vec![], "/", User::root()));
    assert_eq!(crash.exit, Exit::Signaled(libc::SIGSEGV), "{crash:?}");
    assert_eq!(crash.exit.code(), 139);
}

/// The smallest program that jumps to nowhere: an ELF header whose entry isn't mapped.
const CRASH: &[u8] = &{
    let mut file = [0_u8; 120];
    let (header, rest) = (*b"\x7fELF\x02\x01\x01", 16);
    let mut at = 0;
    while at < header.len() {
        file[at] = header[at];
        at += 1;
    }
    // Executable for this machine, version 1; entry 0x10; one program header behind this one.
    file[rest] = 2;
    file[18] = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    file[20] = 1;
    file[24] = 0x10;
    file[32] = 64;
    file[52] = 64;
    file[54] = 56;
    file[56] = 1;
    // Loads itself, readable, at 1 MiB.
    file[64] = 1;
    file[68] = 4;
    file[82] = 0x10;
    file[90] = 0x10;
    file[96] = 120;
    file[104] = 120;
    file[113] = 0x10;
    file
};

#[test]
fn a_command_that_cant_run_has_dockers_codes() {
    let image = Image::new();
    fs::write(image.path("not-executable"), "#!/bin/sh\n").unwrap();
    let run = |name: &str| {
        image
            .run(&Spec::run_step(vec![name.into()], vec![], "/", User::root()))
            .exit
    };
    let missing = run("no-such-command");
    assert_eq!(missing.code(), 127);
    assert_eq!(
        missing.to_string(),
        "could not execute the command: no-such-command: No such file or directory (os error 2)"
    );
    assert_eq!(run("/not-executable").code(), 126);
    assert_eq!(run("/etc").code(), 126);
}

#[test]
fn environment_and_directory_are_the_specifications() {
    let env = vec![
        ("A".to_owned(), "x y".to_owned()),
        ("EMPTY".into(), String::new()),
    ];
    let spec = Spec::run_step(
        vec!["sh".into(), "-c".into(), "env; pwd".into()],
        env,
        "/tmp",
        User::root(),
    );
    let outcome = Image::new().run(&spec);
    let mut lines: Vec<_> = outcome
        .stdout
        .lines()
        .filter(|line| !line.starts_with("SHLVL"))
        .collect();
    lines.sort_unstable();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(lines, ["/tmp", "A=x y", "EMPTY=", "HOME=/root", path, "PWD=/tmp"]);
}

#[test]
fn a_missing_directory_is_a_named_error() {
    let spec = Spec::run_step(vec!["true".into()], vec![], "/no/where", User::root());
    let exit = Image::new().run(&spec).exit;
    let expected = "could not enter the working directory: /no/where: No such file or directory (os error 2)";
    assert_eq!((exit.code(), exit.to_string().as_str()), (125, expected));
}

#[test]
fn a_user_has_its_groups_and_no_capabilities() {
    let image = Image::new();
    let root = fs::File::open(image.path("")).unwrap();
    let user = runtime::user::resolve_user(root.as_fd(), "app").unwrap();
    let script = "id -u; id -g; id -G; umask; echo $HOME; cat /proc/self/status; echo again >/dev/stdout";
    let spec = Spec::run_step(vec!["sh".into(), "-c".into(), script.into()], vec![], "/", user);
    let outcome = image.run(&spec);
    assert!(
        outcome.stdout.starts_with("1000\n1001\n1001 29\n0022\n/home\n"),
        "{outcome:?}"
    );
    assert!(
        outcome.stdout.ends_with("again\n"),
        "its own output can be opened by name: {outcome:?}"
    );
    for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(field(&outcome.stdout, set), "0000000000000000", "{set}");
    }
    assert_eq!(field(&outcome.stdout, "CapBnd"), DEFAULT_SET);
}

/// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT,
/// MKNOD, AUDIT_WRITE, SETFCAP.
const DEFAULT_SET: &str = "00000000a80425fb";

#[test]
fn root_has_the_fourteen_capabilities() {
    let command = vec!["cat".into(), "/proc/self/status".into()];
    let status = Image::new()
        .run(&Spec::run_step(command, vec![], "/", User::root()))
        .stdout;
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(field(&status, set), DEFAULT_SET, "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(field(&status, set), "0000000000000000", "{set}");
    }
    assert_eq!(field(&status, "NoNewPrivs"), "0");
    assert_eq!(field(&status, "SigIgn"), "0000000000000000");
    assert_eq!(field(&status, "SigBlk"), "0000000000000000");
}

#[test]
fn programs_can_set_the_user_id() {
    let image = Image::new();
    let app = User {
        uid: 1000,
        gid: 1001,
        additional_gids: vec![1001],
        umask: 0o022,
        home: None,
    };
    fs::write(
        image.path("etc/passwd"),
        "root::0:0::/root:/bin/sh\napp:x:1000:1001::/home:/bin/sh\n",
    )
    .unwrap();
    // Of a mode that only root may read.
    fs::write(image.path("secret"), "seen\n").unwrap();
    fs::set_permissions(image.path("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let su = image.path("bin/su");
    fs::remove_file(&su).unwrap();
    fs::copy(image.path("bin/busybox"), &su).unwrap();
    let run = || {
        let args = ["su", "-s", "/bin/sh", "-c", "id -u; cat /secret", "root"]
            .map(Into::into)
            .to_vec();
        image.run(&Spec::run_step(args, vec![], "/", app.clone()))
    };
    assert!(!run().exit.success(), "without the bit");
    fs::set_permissions(&su, fs::Permissions::from_mode(0o4755)).unwrap();
    let outcome = run();
    assert_eq!(outcome.stdout, "0\nseen\n", "{outcome:?}");
}

#[test]
fn limits_are_fixed_or_as_high_as_allowed() {
    let outcome = Image::new().sh("ulimit -Sn; ulimit -Hn");
    let hard = rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .maximum
        .unwrap_or(u64::MAX);
    assert_eq!(outcome.stdout, format!("1024\n{}\n", hard.min(1_048_576)));
}

#[test]
fn files_are_mounted_over_the_images_also_over_links() {
    let image = Image::new();
    fs::remove_file(image.path("etc/resolv.conf")).unwrap();
    std::os::unix::fs::symlink("/run/nowhere/stub-resolv.conf", image.path("etc/resolv.conf")).unwrap();
    let ours = tempfile::NamedTempFile::new().unwrap();
    fs::write(ours.path(), "ours\n").unwrap();
    let mut spec = shell(
        "cat /etc/resolv.conf /etc/hosts; echo x >/etc/hosts; df -k /scratch >/dev/null; echo y >/tmp/y",
    );
    spec.mounts = vec![
        Mount::bind(ours.path(), "/etc/resolv.conf", true),
        Mount::bind(ours.path(), "/etc/hosts", true),
        Mount {
            destination: "/tmp".into(),
            kind: MountKind::Tmpfs {
                size_bytes: 1 << 20,
                mode: 0o1777,
            },
        },
    ];
    let outcome = image.run(&spec);
    assert_eq!(outcome.stdout, "ours\nours\n", "{outcome:?}");
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
    assert!(
        !image.upper(0).join("tmp/y").exists(),
        "a tmpfs is no part of the layer"
    );
    assert_eq!(fs::read_to_string(ours.path()).unwrap(), "ours\n");
}

#[test]
fn below_dev_places_are_made() {
    let image = Image::new();
    // Not held open: a file that could be written isn't executed.
    let script = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    fs::write(&script, "#!/bin/sh\necho $0\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let mut spec = Spec::run_step(vec!["/dev/pipes/EOF".into()], vec![], "/", User::root());
    spec.mounts = vec![Mount::bind(&script, "/dev/pipes/EOF", true)];
    assert_eq!(image.run(&spec).stdout, "/dev/pipes/EOF\n");
    for destination in ["/dev/../etc/new", "/dev/pts/../../etc/new", "/dev/fd/9"] {
        spec.mounts = vec![Mount::bind(&script, destination, true)];
        assert_eq!(image.run(&spec).exit.code(), 125, "{destination}");
        assert!(!image.upper(0).join("etc/new").exists(), "{destination}");
    }
}

#[test]
fn a_mount_without_a_place_is_a_named_error() {
    let image = Image::new();
    fs::remove_file(image.path("etc/hosts")).unwrap();
    let mut spec = shell("true");
    spec.mounts = vec![Mount::bind("/etc/hosts", "/etc/hosts", true)];
    let exit = image.run(&spec).exit;
    assert!(
        exit.to_string()
            .starts_with("could not mount /etc/hosts: the image has nothing to mount it on"),
        "{exit}"
    );
    spec.mounts = vec![Mount::bind("/no/such/source", "/etc/hosts", true)];
    let error = image
        .start(
            crate::fixture::zygote(),
            &spec,
            &runtime::NetworkHandle::none(),
            1,
        )
        .unwrap_err();
    assert!(error.to_string().contains("/no/such/source"), "{error}");
}

#[test]
fn the_layer_holds_only_what_the_command_wrote() {
    let image = Image::new();
    assert!(image.sh("echo text >/made; mkdir /d").exit.success());
    let mut names: Vec<_> = fs::read_dir(image.upper(0))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["d", "made"]);
}
