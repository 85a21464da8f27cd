//! A RUN that attacks: it must find no way to the server's port, data directory, database, host devices or processes.
//! Each attack prints a line `BREACH …` when it gets somewhere; the build prints them and the test wants none.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::harness::build::{Built, Context, import};
use crate::harness::server::Server;

/// What the attacks must not reach.
struct Prey {
    server: Server,
    /// A listener on every address of the host, and how often somebody got through.
    port: u16,
    visits: Arc<AtomicUsize>,
    /// A file name in the data directory, and one in /tmp.
    marker: String,
    _host_file: tempfile::TempDir,
}

fn prey() -> Prey {
    let server = Server::start();
    import(&server, "busybox", "busybox:latest");
    let marker = format!("marker-{}", std::process::id());
    fs::write(server.data_dir().join(&marker), "of the server").expect("write a marker");
    let host_file = crate::harness::paths::scratch();
    fs::write(host_file.path().join(&marker), "of the host").expect("write a marker");
    let listener = TcpListener::bind("0.0.0.0:0").expect("a free port");
    let port = listener.local_addr().expect("the port's number").port();
    let visits = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&visits);
    thread::spawn(move || {
        for _visit in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    Prey {
        server,
        port,
        visits,
        marker,
        _host_file: host_file,
    }
}

/// The host's own address on the network.
fn host_address() -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    // Sends nothing: it only asks for the route.
    socket.connect("192.0.2.1:9").expect("a route to the network");
    socket.local_addr().expect("an address").ip().to_string()
}

/// Runs a script as a RUN of its own, `BREACH` lines are failures.
#[track_caller]
fn attack(prey: &mut Prey, script: &str) -> Built {
    let preamble = "breach() { echo \"BREACH $*\"; }\n";
    let context =
        Context::new("FROM busybox\nCOPY attack.sh /attack.sh\nRUN sh /attack.sh 2>&1; echo survived\n");
    let context = context.file("attack.sh", format!("{preamble}{script}"));
    let built = context.build_with(&prey.server, "hostile:v1", &["--no-cache"]);
    let output = &built.step("RUN sh /attack.sh").output;
    let breaches: Vec<&String> = output.iter().filter(|line| line.contains("BREACH")).collect();
    assert!(breaches.is_empty(), "{breaches:#?}\nall output: {output:#?}");
    assert!(
        output.iter().any(|line| line == "survived"),
        "the attack did not run: {output:#?}"
    );
    prey.server.assert_healthy();
    built
}

#[test]
fn no_way_to_the_server_s_or_the_host_s_ports() {
    let mut prey = prey();
    let (server_port, host_port, host) = (prey.server.address().port(), prey.port, host_address());
    let script = format!(
        r#"
gateway=$(ip route | sed -n 's/^default via \([0-9.]*\).*/\1/p')
test -n "$gateway" || echo "no gateway"
for address in 127.0.0.1 localhost 0.0.0.0 ::1 $gateway {host} host.docker.internal; do
    for port in {server_port} {host_port}; do
        timeout 2 nc -w 1 "$address" "$port" </dev/null && breach "connected to $address port $port"
        timeout 2 wget -q -T 1 -O- "http://$address:$port/v2/" && breach "answer of $address port $port"
    done
done
# A neighbour's address, and a route of one's own.
ip route add {host}/32 dev eth0 2>/dev/null && timeout 2 nc -w 1 {host} {host_port} </dev/null && breach "own route"
ip link show | grep -E '^[0-9]+:' | grep -v -E ' (lo|eth0)[:@]' && breach "host interfaces"
grep -q '@' /proc/net/unix && breach "abstract sockets of the host: $(grep @ /proc/net/unix)"
true
"#
    );
    let built = attack(&mut prey, &script);
    let output = built.step("RUN sh /attack.sh").output.join("\n");
    assert!(
        !output.contains("no gateway"),
        "a step without a network proves nothing: {output}"
    );
    assert_eq!(
        prey.visits.load(Ordering::SeqCst),
        0,
        "the host's listener was reached"
    );
}

#[test]
fn no_way_to_the_server_s_files() {
    let mut prey = prey();
    let marker = prey.marker.clone();
    let script = format!(
        r#"
find / -xdev -name '{marker}' 2>/dev/null | grep -q . && breach "marker found"
find / -name '{marker}' -not -path '/proc/*' 2>/dev/null | grep -q . && breach "marker found across mounts"
find / -name registry.db -not -path '/proc/*' 2>/dev/null | grep -q . && breach "database found"
find / -name api.sock -not -path '/proc/*' 2>/dev/null | grep -q . && breach "worker's socket found"
for process in /proc/[0-9]*; do
    ls "$process/root" 2>/dev/null | grep -q -E '^(boot|host|work)$' && breach "host root through $process"
    find "$process/root/tmp" "$process/cwd/" -maxdepth 3 -name '{marker}' 2>/dev/null | grep -q . && breach "marker by $process"
    ls -l "$process/fd" 2>/dev/null | grep -E 'registry|layeryard|blobs|socket:|memfd' && breach "descriptor in $process"
done
cd /proc/1/root/../../../.. && test -e tmp/{marker} && breach "out of the root"
env | grep -i -E 'layeryard|token|worker' && breach "the worker's environment"
tr '\0' '\n' </proc/1/environ | grep -i -E 'layeryard|token' && breach "init's environment"
grep -o -E '(upperdir|lowerdir|workdir)=[^,]*(/[^,]*){{2,}}' /proc/mounts && echo "paths are visible, not a way in"
true
"#
    );
    attack(&mut prey, &script);
}

#[test]
fn no_way_to_host_processes_and_settings() {
    let mut prey = prey();
    let script = r#"
test "$(ls -d /proc/[0-9]* | wc -l)" -lt 12 || breach "many processes: $(ps | head -30)"
ps | grep -E 'layeryard|dockerd|systemd|process_api' | grep -v grep && breach "host processes"
kill -9 -1 2>/dev/null; true
for file in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/kernel/hostname /proc/sys/vm/drop_caches \
    /proc/sys/kernel/modprobe /sys/kernel/uevent_helper /proc/irq/default_smp_affinity /sys/power/state; do
    test -e $file || continue
    (echo x > $file) 2>/dev/null && breach "wrote $file"
done
for file in /proc/kcore /proc/keys /proc/timer_list /sys/firmware/acpi /dev/kmsg /dev/mem; do
    (head -c 1 $file | grep -q .) 2>/dev/null && breach "read $file"
done
find /sys/fs/cgroup -name release_agent 2>/dev/null | while read -r file; do
    (echo /attack.sh > "$file") 2>/dev/null && breach "wrote $file"
done
mkdir -p /sys/fs/cgroup/escape 2>/dev/null && breach "made a control group"
mount -t tmpfs none /mnt 2>/dev/null && breach "mounted tmpfs"
mount -t proc proc /mnt 2>/dev/null && breach "mounted proc"
mount -o remount,rw /sys 2>/dev/null && breach "remounted /sys"
umount /proc/kcore 2>/dev/null && breach "unmasked kcore"
umount -l /sys 2>/dev/null && breach "unmounted /sys"
hostname evil 2>/dev/null && breach "set the host name"
insmod /attack.sh 2>&1 | grep -q -i 'invalid module' && breach "module loading"
chroot /proc/1/root true 2>/dev/null; pivot_root / / 2>/dev/null && breach "pivot_root"
nice -n -20 true 2>/dev/null && breach "raised priority"
dmesg 2>/dev/null | grep -q . && breach "kernel log"
date -s '2001-01-01 00:00:00' 2>/dev/null; test "$(date +%Y)" -lt 2002 && breach "set the clock"
reboot -f 2>/dev/null && breach "reboot"
capabilities=$(sed -n 's/^CapEff:\t//p' /proc/self/status)
test "$capabilities" = 00000000a80425fb || breach "capabilities $capabilities"
test "$(sed -n 's/^CapInh:\t//p' /proc/self/status)" = 0000000000000000 || breach "inheritable capabilities"
true
"#;
    attack(&mut prey, script);
}

#[test]
fn no_way_to_devices() {
    let mut prey = prey();
    let majors: Vec<String> = fs::read_to_string("/proc/partitions")
        .expect("list the host's disks")
        .lines()
        .skip(2)
        .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
        .collect();
    let script = format!(
        r#"
while read -r major minor; do
    rm -f /disk && mknod /disk b $major $minor && (head -c 512 /disk | grep -q .) 2>/dev/null && breach "read disk $major:$minor"
    rm -f /dev/disk && mknod /dev/disk b $major $minor && (head -c 512 /dev/disk | grep -q .) 2>/dev/null && breach "disk in /dev"
    rm -f /tmp/disk && mkdir -p /dev/shm/d && mknod /dev/shm/d/disk b $major $minor && (head -c 512 /dev/shm/d/disk) 2>/dev/null && breach "disk in shm"
    rm -f /disk /dev/disk /dev/shm/d/disk
done <<END
{}
END
mknod /mem c 1 1 && (head -c 1 /mem | grep -q .) 2>/dev/null && breach "read /dev/mem"
mknod /kmsg c 1 11 && (head -c 1 /kmsg | grep -q .) 2>/dev/null && breach "read kmsg"
rm -f /mem /kmsg
# The nodes are the machine's own: not even their modes are the step's. (What is tried here changes nothing if it works.)
for node in null zero full random urandom tty; do
    chmod 666 /dev/$node 2>/dev/null && breach "chmod of the host's /dev/$node"
    chown 0 /dev/$node 2>/dev/null && breach "chown of the host's /dev/$node"
    echo x > /dev/$node || test $node = full -o $node = tty || breach "cannot write /dev/$node"
done
chmod 444 /proc/keys 2>/dev/null && breach "chmod through a masked file"
for entry in $(ls /dev); do
    case $entry in
        null | zero | full | random | urandom | tty | console | pts | ptmx | shm | mqueue | fd | stdin | stdout | stderr | core) ;;
        *) breach "device $entry" ;;
    esac
done
true
"#,
        majors.join("\n")
    );
    attack(&mut prey, &script);
}

#[test]
fn user_namespaces_gain_nothing() {
    let mut prey = prey();
    let marker = prey.marker.clone();
    let script = format!(
        r#"
unshare -Urmn sh -c '
    mount -t proc proc /proc 2>/dev/null
    mount -o remount,rw /proc/sys 2>/dev/null && (echo x > /proc/sys/kernel/core_pattern) 2>/dev/null && echo "BREACH core_pattern"
    (echo b > /proc/sysrq-trigger) 2>/dev/null && echo "BREACH sysrq"
    find / -name {marker} -not -path "/proc/*" 2>/dev/null | grep -q . && echo "BREACH marker"
    umount -l /proc/kcore 2>/dev/null; (head -c 1 /proc/kcore | grep -q .) 2>/dev/null && echo "BREACH kcore"
    true
' 2>/dev/null
nsenter -t 1 -m -u -i -n -p true 2>/dev/null && test "$(ls -d /proc/[0-9]* | wc -l)" -gt 12 && breach "host namespaces"
true
"#
    );
    attack(&mut prey, &script);
}

#[test]
fn only_three_descriptors_are_open() {
    let prey = prey();
    let context = Context::new("FROM busybox\nRUN [\"/bin/ls\", \"/proc/self/fd\"]\n");
    let built = context.build(&prey.server, "descriptors:v1");
    // 3 is the listed directory itself.
    assert_eq!(built.step("/proc/self/fd").output, ["0", "1", "2", "3"]);
}

/// The image itself lies: its /proc, /dev, /sys and /etc files are links to the host.
#[test]
fn links_in_the_image_lead_nowhere() {
    let mut prey = prey();
    let trap = prey.server.scratch().join("trap");
    for name in ["proc", "dev", "sys", "etc", "work"] {
        fs::create_dir_all(trap.join(name)).expect("make a directory");
    }
    for name in ["resolv.conf", "hosts", "hostname"] {
        fs::write(trap.join("etc").join(name), "untouched").expect("write a file");
    }
    let context = Context::new(
        "FROM scratch\nCOPY --from=busybox /bin /bin\nADD links.tar /\nWORKDIR /escape/made\nRUN /bin/busybox echo ran\nRUN /bin/busybox touch /escape/touched || true\n",
    );
    let mut tar = tar::Builder::new(Vec::new());
    let outside = trap.to_str().expect("a path in UTF-8");
    let links = [
        ("proc", format!("{outside}/proc")),
        ("dev", format!("{outside}/dev")),
        ("sys", format!("{outside}/sys")),
        ("etc/resolv.conf", format!("{outside}/etc/resolv.conf")),
        (
            "etc/hosts",
            format!("../../../../../../../../{outside}/etc/hosts"),
        ),
        ("etc/hostname", format!("{outside}/etc/hostname")),
        ("escape", format!("{outside}/work")),
    ];
    for (name, target) in links {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        tar.append_link(&mut header, name, &target)
            .expect("append to memory");
    }
    context.write("links.tar", tar.into_inner().expect("finish a tar in memory"));
    // Whether it builds or is refused is the builder's matter; the host is not touched.
    let ran = context
        .command(&prey.server, "links:v1")
        .args(["--progress", "plain"])
        .run();
    let mut left: Vec<String> = walkdir::WalkDir::new(&trap)
        .into_iter()
        .map(|entry| {
            entry
                .expect("walk")
                .path()
                .strip_prefix(&trap)
                .expect("below")
                .display()
                .to_string()
        })
        .collect();
    left.sort();
    let expected = [
        "",
        "dev",
        "etc",
        "etc/hostname",
        "etc/hosts",
        "etc/resolv.conf",
        "proc",
        "sys",
        "work",
    ];
    assert_eq!(left, expected, "{ran}");
    for name in ["resolv.conf", "hosts", "hostname"] {
        let text = fs::read_to_string(trap.join("etc").join(name)).expect("read a file");
        assert_eq!(text, "untouched", "{ran}");
    }
    prey.server.assert_healthy();
}

#[test]
fn workdir_in_proc_leads_nowhere() {
    let mut prey = prey();
    let marker = prey.marker.clone();
    for fd in [3, 5, 7, 8, 9, 12] {
        let dockerfile = format!(
            "FROM busybox\nWORKDIR /proc/self/fd/{fd}\nRUN cd ../../../../../../..; ls tmp | grep {marker} && echo BREACH; true\n"
        );
        let ran = Context::new(&dockerfile)
            .command(&prey.server, "fd:v1")
            .args(["--progress", "plain"])
            .run();
        let shown = ran.to_string();
        assert!(!shown.lines().any(|line| line.ends_with("BREACH")), "{shown}");
    }
    prey.server.assert_healthy();
}

/// What must go on working: setuid programs, as in Docker (sudo itself: build/debian.rs).
#[test]
fn setuid_programs_work() {
    let server = Server::start();
    import(&server, "debian", "debian:latest");
    let dockerfile = "\
FROM debian
RUN cp /usr/bin/id /setuid-id && chmod 4755 /setuid-id
USER nobody
RUN test \"$(id -u)\" != 0 && test \"$(/setuid-id -u)\" = 0
";
    Context::new(dockerfile).build(&server, "setuid:v1");
}
