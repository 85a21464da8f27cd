//! What went wrong in other runtimes.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use runtime::{Mount, Spec, User};

use crate::fixture::{Image, shell, zygote};

/// CVE-2019-16884, 2019-19921, 2023-28642, 2026-41579: the image's own /proc, /sys or /dev is a link.
#[test]
fn links_in_place_of_kernel_directories_are_refused() {
    for name in ["proc", "sys", "dev"] {
        let image = Image::new();
        let outside = tempfile::tempdir().unwrap();
        fs::remove_dir(image.path(name)).unwrap();
        symlink(outside.path(), image.path(name)).unwrap();
        let exit = image.sh("true").exit;
        assert!(
            exit.to_string()
                .starts_with(&format!("could not mount /{name}: ")),
            "{exit}"
        );
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}

#[test]
fn missing_kernel_directories_are_named() {
    let image = Image::new();
    fs::remove_dir(image.path("sys")).unwrap();
    let exit = image.sh("true").exit;
    assert!(
        exit.to_string()
            .starts_with("could not mount /sys: the image has no such directory"),
        "{exit}"
    );
}

/// A link among the directories of a mount's place leads inside the root.
#[test]
fn links_on_the_way_to_a_mount_stay_inside() {
    let image = Image::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("hosts"), "the machine's\n").unwrap();
    fs::create_dir_all(image.path(outside.path().to_str().unwrap().trim_start_matches('/'))).unwrap();
    fs::remove_dir_all(image.path("etc")).unwrap();
    symlink(outside.path(), image.path("etc")).unwrap();
    let mut spec = shell("true");
    spec.mounts = vec![Mount::bind("/etc/hostname", "/etc/hosts", true)];
    let exit = image.run(&spec).exit;
    assert!(
        exit.to_string().contains("the image has nothing to mount it on"),
        "{exit}"
    );

    let dotdot = ["/../../../../../../etc/hosts", "/tmp/../../../etc/hosts"];
    let image = Image::new();
    for destination in dotdot {
        let mut spec = shell("cat /etc/hosts");
        spec.mounts = vec![Mount::bind(outside.path().join("hosts"), destination, true)];
        assert_eq!(
            image.run(&spec).stdout,
            "the machine's\n",
            "{destination} is the root's own /etc/hosts"
        );
    }
}

/// Mounts over /proc would undo the masks.
#[test]
fn mounts_over_kernel_places_are_refused() {
    let image = Image::new();
    symlink("proc", image.path("link")).unwrap();
    for destination in [
        "/",
        "/proc",
        "/proc/self/attr",
        "/proc/sys",
        "/sys/kernel",
        "/link/kcore",
    ] {
        let mut spec = shell("true");
        spec.mounts = vec![Mount::bind("/etc/hostname", destination, false)];
        let exit = image.run(&spec).exit;
        assert!(
            exit.to_string()
                .starts_with(&format!("could not mount {destination}: ")),
            "{exit}"
        );
    }
}

/// CVE-2024-21626: a descriptor of ours as the working directory.
#[test]
fn descriptors_are_no_working_directory() {
    let image = Image::new();
    for number in 0..20 {
        for process in ["self", "1"] {
            let cwd = format!("/proc/{process}/fd/{number}");
            let exit = image
                .run(&Spec::run_step(
                    vec!["pwd".into()],
                    vec![],
                    cwd.clone(),
                    User::root(),
                ))
                .exit;
            assert_eq!(exit.code(), 125, "{cwd}: {exit}");
        }
    }
    symlink("/proc/self/root", image.path("escape")).unwrap();
    let exit = image
        .run(&Spec::run_step(
            vec!["pwd".into()],
            vec![],
            "/escape",
            User::root(),
        ))
        .exit;
    assert_eq!(exit.code(), 125, "{exit}");
}

/// CVE-2019-5736: the runtime's own program as the command, or written through /proc.
#[test]
fn the_runtimes_program_cant_be_written() {
    let image = Image::new();
    fs::write(image.path("entry"), "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(image.path("entry"), fs::Permissions::from_mode(0o755)).unwrap();
    for command in ["/entry", "/proc/self/exe"] {
        let outcome = image.run(&Spec::run_step(vec![command.into()], vec![], "/", User::root()));
        assert!(
            !outcome.exit.success() || outcome.stdout.is_empty(),
            "{command}: {outcome:?}"
        );
    }
    let program = format!("/proc/{}/exe", zygote().pid());
    assert!(
        fs::read_link(&program)
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("/memfd:layeryard")
    );
    let error = fs::File::options().write(true).open(&program).unwrap_err();
    assert!(
        matches!(error.raw_os_error(), Some(libc::EPERM | libc::ETXTBSY)),
        "{error}"
    );
}

/// CVE-2025-31133: masks are made of a /dev/null that the image can't replace.
#[test]
fn masks_dont_depend_on_the_images_null() {
    let image = Image::new();
    symlink("/proc/uptime", image.path("dev/null")).unwrap();
    let outcome = image.sh("stat -c %t:%T /proc/keys /dev/null; cat /proc/keys | wc -c");
    assert_eq!(outcome.stdout, "1:3\n1:3\n0\n", "{outcome:?}");
}

/// Nothing above the root, in no way the fourteen capabilities allow.
#[test]
fn the_root_cant_be_left() {
    let image = Image::new();
    let outcome =
        image.sh("ls /../../.. | sort; mkdir -p /tmp/a; ls -d /proc/1/root/../../work /proc/*/root/work");
    assert_eq!(
        outcome.stdout, "bin\ndev\netc\nhome\nproc\nroot\nsys\ntmp\n",
        "{outcome:?}"
    );
}

/// The nodes in /dev are the machine's own, and so is what masks files of /proc.
#[test]
fn the_machines_device_nodes_cant_be_changed() {
    let image = Image::new();
    // The mode they have: should it ever get through, nothing breaks.
    let script = "echo x > /dev/null && for node in /dev/null /dev/full /dev/tty /proc/keys; do \
                  [ -e $node ] && chmod 0666 $node 2>/dev/null && echo changed $node; \
                  touch -c $node 2>/dev/null && echo touched $node; done; true";
    let ran = image.sh(script);
    assert!(ran.exit.success(), "{}", ran.exit);
    assert_eq!(ran.stdout, "");
}
