//! Networks: nothing, or the world and nothing of this machine.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use runtime::network::{Bridge, BridgeConfig, Files, Resolver};
use runtime::{Network, NetworkHandle, Spec};

use crate::fixture::{Image, Outcome, shell};

fn config(id: &str) -> BridgeConfig {
    BridgeConfig {
        id: id.into(),
        resolver: Resolver::of_this_machine(),
        denied: vec![],
    }
}

/// A bridge of the test's own, removed at its end.
fn bridge(test: &str) -> Arc<Bridge> {
    Bridge::start(&config(test)).unwrap()
}

fn on_bridge(script: &str) -> Spec {
    let mut spec = shell(script);
    spec.network = Network::Bridge;
    spec
}

fn run(bridge: &Arc<Bridge>, script: &str) -> Outcome {
    let files = tempfile::tempdir().unwrap();
    let mut spec = on_bridge(script);
    spec.mounts = Files::write(files.path(), &Resolver::of_this_machine(), &spec.hostname)
        .unwrap()
        .mounts();
    Image::new().run_on(&spec, &NetworkHandle::bridge(bridge.clone()))
}

#[test]
fn without_a_network_there_is_only_loopback() {
    let outcome =
        Image::new().sh("ls /sys/class/net; ip -o addr | grep -c 127.0.0.1; cat /proc/net/route | wc -l");
    assert_eq!(outcome.stdout, "lo\n1\n1\n", "{outcome:?}");
}

#[test]
fn a_step_for_the_bridge_without_one_is_refused() {
    let image = Image::new();
    let error = image
        .start(
            crate::fixture::zygote(),
            &on_bridge("true"),
            &NetworkHandle::none(),
            0,
        )
        .unwrap_err();
    assert!(matches!(error, runtime::RuntimeError::NoBridge), "{error:?}");
}

#[test]
fn a_step_has_one_address_and_no_ipv6_one() {
    let bridge = bridge("a_step_has_one_address_and_no_ipv6_one");
    let outcome = run(
        &bridge,
        "ls /sys/class/net | sort; ip -o -4 addr show eth0 | wc -l; ip -o -6 addr show eth0 | wc -l; ip route",
    );
    let gateway = bridge.gateway();
    let expected = format!("eth0\nlo\n1\n0\ndefault via {gateway} dev eth0 \n");
    assert!(outcome.stdout.starts_with(&expected), "{outcome:?}");
}

#[test]
fn names_are_resolved_and_the_world_is_reached() {
    let bridge = bridge("names_are_resolved_and_the_world_is_reached");
    let server = Resolver::of_this_machine().name_servers[0];
    let outcome = run(
        &bridge,
        "cat /etc/resolv.conf /etc/hostname; nslookup deb.debian.org 2>&1 | grep -c Address",
    );
    assert!(
        outcome.stdout.starts_with(&format!("nameserver {server}\n")),
        "{outcome:?}"
    );
    assert!(outcome.stdout.contains("\nlayeryard\n"), "{outcome:?}");
    let answers: u32 = outcome.stdout.lines().last().unwrap().parse().unwrap();
    assert!(
        answers >= 2,
        "the server's own address and at least one answer: {outcome:?}"
    );

    // A static program's resolver needs libraries the image hasn't got, so names are looked up by hand.
    let fetched = run(
        &bridge,
        "ip=$(nslookup -type=a deb.debian.org | grep Address | tail -n 1 | grep -o '[0-9.]*$'); \
         (printf 'GET /debian/dists/stable/Release HTTP/1.1\\r\\nHost: deb.debian.org\\r\\nConnection: close\\r\\n\\r\\n'; sleep 3) | \
         nc -w 20 $ip 80 | grep -c '^Origin: Debian'",
    );
    assert!(fetched.stdout.starts_with("1\n"), "{fetched:?}");
}

/// IPv4 addresses of this machine, without those of bridges that other tests make and remove.
fn own_addresses(bridge: &Bridge) -> Vec<String> {
    let output = Command::new("ip")
        .args(["-4", "-o", "addr", "show", "scope", "global"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let fields = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let lasting = fields.filter(|fields| fields[1] == bridge.name() || !fields[1].starts_with("ly"));
    lasting
        .map(|fields| fields[3].split('/').next().unwrap().to_owned())
        .collect()
}

#[test]
fn no_port_of_this_machine_is_reached() {
    let bridge = bridge("no_port_of_this_machine_is_reached");
    let gateway = bridge.gateway().to_string();
    let any = TcpListener::bind("0.0.0.0:0").unwrap();
    let loopback = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = any.local_addr().unwrap().port();
    let mut targets: Vec<_> = own_addresses(&bridge)
        .iter()
        .map(|address| format!("{address} {port}"))
        .collect();
    assert!(targets.contains(&format!("{gateway} {port}")), "{targets:?}");
    targets.push(format!("127.0.0.1 {}", loopback.local_addr().unwrap().port()));
    let script: String = targets
        .iter()
        .map(|target| format!("nc -w 1 {target} </dev/null && echo reached {target};"))
        .collect();
    let outcome = run(
        &bridge,
        &format!("{script} ping -c 1 -W 1 {gateway} >/dev/null && echo pinged; echo end"),
    );
    assert_eq!(outcome.stdout, "end\n", "{outcome:?}");
    any.set_nonblocking(true).unwrap();
    assert!(any.accept().is_err());
    for target in targets.iter().filter(|target| !target.starts_with("127.")) {
        let (address, port) = target.split_once(' ').unwrap();
        assert!(
            std::net::TcpStream::connect((address, port.parse().unwrap())).is_ok(),
            "{target} listens"
        );
    }
}

#[test]
fn steps_dont_reach_each_other() {
    let bridge = bridge("steps_dont_reach_each_other");
    let image = Image::new();
    let handle = NetworkHandle::bridge(bridge.clone());
    let listen = on_bridge("ip -4 -o addr show eth0; nc -l -p 7777 >/tmp/got; echo got");
    let (step, stdout, _stderr) = image
        .start(crate::fixture::zygote(), &listen, &handle, 1)
        .unwrap();
    let mut line = [0; 256];
    let length = rustix::io::read(stdout.as_fd(), &mut line).unwrap();
    let line = String::from_utf8_lossy(&line[..length]).into_owned();
    let address = line
        .split_whitespace()
        .nth(3)
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .to_owned();
    let outcome = run(
        &bridge,
        &format!(
            "nc -w 2 {address} 7777 </dev/null && echo reached; ping -c 1 -W 1 {address} >/dev/null && echo pinged"
        ),
    );
    assert_eq!(outcome.stdout, "", "{outcome:?}");
    assert!(
        outcome.stderr.contains("timed out"),
        "not answered, not even refused: {outcome:?}"
    );
    step.kill();
    step.wait().unwrap();
}

/// The address a step has printed.
fn first_address(stdout: &OwnedFd) -> String {
    let mut line = [0; 256];
    let length = rustix::io::read(stdout.as_fd(), &mut line).unwrap();
    let line = String::from_utf8_lossy(&line[..length]).into_owned();
    line.split_whitespace()
        .nth(3)
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .to_owned()
}

/// A step may send any frame (NET_RAW is among Docker's capabilities), so none is believed.
#[test]
fn where_an_address_is_cant_be_spoofed() {
    let bridge = bridge("where_an_address_is_cant_be_spoofed");
    let (image, handle) = (Image::new(), NetworkHandle::bridge(bridge.clone()));
    let spec = on_bridge("ip -4 -o addr show eth0; sleep 60");
    let (step, stdout, _stderr) = image.start(crate::fixture::zygote(), &spec, &handle, 2).unwrap();
    let address = first_address(&stdout);
    let output = Command::new("ip")
        .args(["neigh", "show", &address, "nud", "permanent"])
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&output.stdout).contains(bridge.name()),
        "{output:?}"
    );
    drop(step);
}

#[test]
fn link_local_and_denied_networks_are_closed() {
    let mut config = config("runtime-tests-denied");
    config.denied = vec![("192.0.2.0".parse().unwrap(), 24)];
    let bridge = Bridge::start(&config).unwrap();
    // An address that answers: a second one of the machine's own is closed anyway, so a namespace would be needed
    // to show reachability; that the rule is there is what can be seen here.
    let rules = Command::new("nft")
        .args(["list", "table", "inet", bridge.name()])
        .output()
        .unwrap();
    let rules = String::from_utf8(rules.stdout).unwrap();
    for network in ["169.254.0.0/16", "192.0.2.0/24"] {
        assert!(rules.contains(&format!("ip daddr {network} drop")), "{rules}");
    }
}

#[test]
fn steps_on_the_bridge_run_at_a_time() {
    let bridge = bridge("steps_on_the_bridge_run_at_a_time");
    let image = Image::new();
    let handle = NetworkHandle::bridge(bridge);
    std::thread::scope(|scope| {
        for number in 0..6 {
            let (image, handle) = (&image, &handle);
            scope.spawn(move || {
                for _ in 0..4 {
                    let spec = on_bridge("ip -4 -o addr show eth0 | wc -l");
                    let zygote = crate::fixture::zygote();
                    let (step, stdout, _stderr) = image.start(zygote, &spec, handle, number).unwrap();
                    assert_eq!(crate::fixture::read(stdout), "1\n");
                    assert!(step.wait().unwrap().success());
                }
            });
        }
    });
}

fn exists(bridge: &str) -> (bool, bool, bool) {
    let ok = |program: &str, arguments: &[&str]| {
        Command::new(program)
            .args(arguments)
            .output()
            .unwrap()
            .status
            .success()
    };
    let link = ok("ip", &["link", "show", bridge]);
    let table = ok("nft", &["list", "table", "inet", bridge]);
    let forward = Command::new("nft")
        .args(["list", "table", "ip", "filter"])
        .output()
        .unwrap();
    (
        link,
        table,
        String::from_utf8_lossy(&forward.stdout).contains(bridge),
    )
}

#[test]
fn a_bridge_is_removed_and_a_stale_one_replaced() {
    let bridge = Bridge::start(&config("runtime-tests-stale")).unwrap();
    let name = bridge.name().to_owned();
    assert_eq!((exists(&name).0, exists(&name).1), (true, true));
    // As if the worker had been killed: nothing of it has been dropped.
    let again = Bridge::start(&config("runtime-tests-stale")).unwrap();
    assert_eq!(again.name(), name);
    // Its end takes nothing from the one in its place.
    drop(bridge);
    assert_eq!((exists(&name).0, exists(&name).1), (true, true));
    let outcome = Image::new().run_on(
        &on_bridge("cat /proc/net/route | wc -l"),
        &NetworkHandle::bridge(again.clone()),
    );
    assert_eq!(outcome.stdout, "3\n", "{outcome:?}");
    drop(again);
    assert_eq!(exists(&name), (false, false, false));
}

#[test]
fn bridges_of_the_dead_are_removed_and_those_of_the_living_are_not() {
    let start = |id: &str| {
        let helper = env!("CARGO_BIN_EXE_layeryard-zygote-helper");
        let mut command = Command::new(helper);
        let mut process = command
            .args(["bridge", id])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut name = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut name)
            .unwrap();
        (process, name.trim().to_owned())
    };
    let (mut dead, dead_bridge) = start("runtime-tests-dead");
    let (mut living, living_bridge) = start("runtime-tests-living");
    dead.kill().unwrap();
    dead.wait().unwrap();
    // The bridge of any other test may have swept it away already: this one must have, at the latest.
    let bridge = bridge("runtime-tests-sweeper");
    assert_eq!(exists(&dead_bridge), (false, false, false));
    assert_eq!((exists(&living_bridge).0, exists(&living_bridge).1), (true, true));
    let claimed = Bridge::start(&config("runtime-tests-living")).unwrap_err();
    assert!(
        matches!(claimed, runtime::network::NetworkError::Claimed),
        "{claimed}"
    );
    drop(bridge);
    drop(living.stdin.take());
    assert!(living.wait().unwrap().success());
    assert_eq!(exists(&living_bridge), (false, false, false));
}

/// As Docker leaves a machine; in a namespace of the test's own, which has no other firewall.
#[test]
fn a_dropping_firewall_is_told_to_forward() {
    if Command::new("iptables").arg("-V").output().is_err() {
        return;
    }
    let thread = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let iptables = |arguments: &[&str]| {
            let output = Command::new("iptables").args(arguments).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        iptables(&["-P", "FORWARD", "DROP"]);
        let bridge = Bridge::start(&config("runtime-tests-firewall")).unwrap();
        let name = bridge.name().to_owned();
        // The bridge's thread does it before it makes the first namespace.
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut rules = String::new();
        while rules.lines().count() < 3 && Instant::now() < deadline {
            rules = iptables(&["-S", "FORWARD"]);
        }
        assert!(rules.contains(&format!("-A FORWARD -i {name}")), "{rules}");
        assert!(rules.contains(&format!("-A FORWARD -o {name}")), "{rules}");
        assert!(rules.contains("-j ACCEPT"), "{rules}");
        drop(bridge);
        assert_eq!(iptables(&["-S", "FORWARD"]), "-P FORWARD DROP\n");
    });
    thread.join().unwrap();
}
