//! What a command sees of the kernel and doesn't see of the machine.

use std::collections::BTreeMap;

use runtime::Seccomp;

use crate::fixture::{Image, field, shell};

#[test]
fn namespaces_are_its_own() {
    let outcome = Image::new()
        .sh("for n in mnt pid ipc uts net cgroup; do readlink /proc/self/ns/$n; done; echo $$; hostname");
    let mut lines = outcome.stdout.lines();
    for name in ["mnt", "pid", "ipc", "uts", "net", "cgroup"] {
        let machine = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        let own = lines.next().unwrap();
        assert!(
            own.starts_with(name) && own != machine.to_str().unwrap(),
            "{name}: {own}"
        );
    }
    assert_eq!(lines.collect::<Vec<_>>(), ["1", "layeryard"]);
}

#[test]
fn only_the_standard_streams_are_open() {
    let outcome = Image::new().sh("ls /proc/1/fd; readlink /proc/1/fd/0");
    assert_eq!(outcome.stdout, "0\n1\n2\n/dev/null\n");
}

#[test]
fn devices_are_the_six_and_others_cant_be_opened() {
    let script = "cd /dev; ls -1; stat -c '%n %t:%T %a' null zero full random urandom tty; \
        head -c 3 /dev/zero | wc -c; echo x >/dev/null && echo null; echo x 2>&1 >/dev/full; \
        mknod /dev/sda b 8 0 && head -c 1 /dev/sda; mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg; \
        for l in fd stdin stdout stderr core ptmx; do readlink $l; done; test -w /dev/shm/. && touch /dev/shm/x && echo shm";
    let outcome = Image::new().sh(script);
    let names =
        "core\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n";
    let nodes = "null 1:3 666\nzero 1:5 666\nfull 1:7 666\nrandom 1:8 666\nurandom 1:9 666\ntty 5:0 666\n";
    let links = "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\n/proc/kcore\npts/ptmx\n";
    let full = "sh: write error: No space left on device\n";
    let rest = outcome
        .stdout
        .strip_prefix(&format!("{names}{nodes}3\nnull\n"))
        .expect(&outcome.stdout);
    assert!(
        rest == format!("{links}shm\n") || rest == format!("{full}{links}shm\n"),
        "{outcome:?}"
    );
    for device in ["/dev/sda", "/tmp/kmsg"] {
        assert!(
            outcome.stderr.contains(&format!("{device}: Permission denied")),
            "{outcome:?}"
        );
    }
}

#[test]
fn system_calls_for_new_rights_are_refused() {
    let image = Image::new();
    let script = "unshare -U true || echo refused; unshare -n true || echo refused; cat /proc/self/status";
    let outcome = image.sh(script);
    assert!(outcome.stdout.starts_with("refused\nrefused\n"), "{outcome:?}");
    assert_eq!(field(&outcome.stdout, "Seccomp"), "2");
    let mut spec = shell("unshare -U true && echo done");
    spec.seccomp = Seccomp::Unconfined;
    assert_eq!(image.run(&spec).stdout, "done\n");
}

/// Attributes by mount point, as the command sees them; later mounts cover earlier ones.
fn mounts(image: &Image) -> BTreeMap<String, (String, String)> {
    let outcome = image.sh("cat /proc/self/mountinfo");
    let parse = |line: &str| {
        let fields: Vec<_> = line.split(' ').collect();
        let kind = fields[fields.iter().position(|field| *field == "-").unwrap() + 1];
        (fields[4].to_owned(), (kind.to_owned(), fields[5].to_owned()))
    };
    outcome.stdout.lines().map(parse).collect()
}

#[test]
fn mounts_are_nodev_and_the_kernels_are_closed() {
    let mounts = mounts(&Image::new());
    for (place, (kind, attributes)) in &mounts {
        let is_device = kind != "tmpfs" && place.starts_with("/dev/") && kind == "devtmpfs";
        let masked_by_null = kind == "devtmpfs" && place.starts_with("/proc/");
        let nodev = attributes.split(',').any(|attribute| attribute == "nodev");
        assert!(
            nodev || is_device || masked_by_null || place == "/dev/pts",
            "{place}: {kind} {attributes}"
        );
    }
    assert_eq!(mounts["/"].0, "overlay");
    assert!(!mounts["/"].1.contains("nosuid"), "set-user-id programs work");
    assert!(mounts["/sys"].1.starts_with("ro,"));
    for place in ["/proc/sys", "/proc/bus", "/proc/irq", "/proc/fs"] {
        assert!(mounts[place].1.starts_with("ro,"), "{place}: {:?}", mounts[place]);
    }
    assert!(
        mounts.keys().all(|place| !place.starts_with("/tmp/")),
        "nothing of the machine: {mounts:?}"
    );
}

#[test]
fn masked_and_read_only_paths_hold() {
    let script = "cat /proc/keys /proc/interrupts /proc/timer_list | wc -c; ls /sys/firmware | wc -l; \
        echo 1 >/proc/sys/kernel/randomize_va_space; echo 0 >/proc/irq/default_smp_affinity; echo x >/sys/power/state; \
        mount -t tmpfs none /tmp; umount /proc; mount -o remount,rw /proc/sys; hostname other";
    let outcome = Image::new().sh(script);
    assert_eq!(outcome.stdout, "0\n0\n");
    assert_eq!(
        outcome.stderr.matches("Read-only file system").count(),
        3,
        "{outcome:?}"
    );
    assert!(!outcome.exit.success());
    assert_eq!(
        outcome
            .stderr
            .lines()
            .filter(|line| line.contains("ermitted") || line.contains("denied"))
            .count(),
        4,
        "{outcome:?}"
    );
}

#[test]
fn other_processes_and_ipc_are_out_of_sight() {
    let script = "echo /proc/[0-9]*; kill -0 2; cat /proc/sysvipc/shm | wc -l; cat /proc/net/unix | wc -l";
    // The shell alone, which has started nobody yet; only the title lines.
    assert_eq!(Image::new().sh(script).stdout, "/proc/1\n1\n1\n");
}

#[test]
fn pseudo_terminals_are_its_own() {
    let outcome = Image::new().sh("ls /dev/pts; stat -c %a /dev/pts/ptmx");
    assert_eq!(outcome.stdout, "ptmx\n666\n");
}

#[test]
fn limits_of_a_control_group_hold() {
    let image = Image::new();
    let mut spec = shell("for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait");
    spec.cgroup.as_mut().unwrap().pids_max = Some(4);
    let outcome = image.run(&spec);
    assert!(outcome.stderr.contains("fork"), "{outcome:?}");

    let mut spec = shell("head -c 100000000 /dev/zero | tail -c 100000000 >/dev/null");
    spec.args = ["tail", "-c", "200000000", "/dev/zero"].map(Into::into).to_vec();
    spec.cgroup.as_mut().unwrap().memory_max_bytes = Some(32 << 20);
    let outcome = image.run(&spec);
    assert_eq!(outcome.exit, runtime::Exit::OutOfMemory, "{outcome:?}");
    assert_eq!(outcome.exit.code(), 137);
}
