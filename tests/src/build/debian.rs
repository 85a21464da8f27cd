//! The main job: a real Dockerfile on a Debian image, with the network and the package manager.

use std::thread;
use std::time::Duration;

use crate::harness::build::{Context, import};
use crate::harness::engine;
use crate::harness::server::Server;

/// Removes what apt and dpkg write differently each time (times in logs, addresses in caches).
const DOCKERFILE: &str = r#"
FROM debian AS tools
RUN apt-get update \
 && apt-get install -y --no-install-recommends figlet sudo \
 && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log /var/log/alternatives.log \
    /var/cache/apt/*.bin /var/cache/ldconfig/aux-cache
RUN echo 'worker ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/worker && chmod 440 /etc/sudoers.d/worker
WORKDIR /out
RUN figlet layeryard > banner.txt && test -s banner.txt

FROM tools
COPY --from=tools /out/banner.txt /srv/
COPY --chmod=755 greet.sh /usr/local/bin/greet
RUN useradd --create-home --uid 4242 worker \
 && rm -f /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- /etc/subuid- /etc/subgid-
USER worker
RUN test "$(id -u)" = 4242 && test "$(sudo id -u)" = 0 && sudo touch /srv/by-root
WORKDIR /home/worker
ENV GREETING="hello from a build"
CMD ["greet"]
"#;

const GREET: &str = "#!/bin/sh\necho \"$GREETING, $(id -un) in $(pwd), $(wc -l < /srv/banner.txt) lines\"\n";

#[test]
fn debian_image_is_built_pulled_run_and_reproduced() {
    // An engine on the same machine sets the policy of FORWARD to DROP; steps must get out nevertheless.
    engine::debian();
    let mut server = Server::start();
    import(&server, "debian", "debian:latest");
    let context = Context::new(DOCKERFILE).file("greet.sh", GREET);
    let built = context.build(&server, "team/greeter:v1");

    let image = format!("{}/team/greeter:v1", server.host());
    for engine in [engine::debian(), engine::newest()] {
        engine.docker(["pull", &image]).ok();
        let said = engine.docker(["run", "--rm", "--network=none", &image]).ok();
        assert_eq!(said, "hello from a build, worker in /home/worker, 6 lines");
        let owner = [
            "run",
            "--rm",
            "--network=none",
            &image,
            "stat",
            "-c",
            "%u:%g",
            "/srv/by-root",
        ];
        assert_eq!(engine.docker(owner).ok(), "0:0");
        engine.docker(["rmi", "--force", &image]).ok();
    }
    server.assert_healthy();
    drop(server);

    // Another data directory, another time, one core.
    thread::sleep(Duration::from_secs(2));
    let other = Server::start_under(&["taskset", "-c", "0"]);
    import(&other, "debian", "debian:latest");
    let context = Context::new(DOCKERFILE).file("greet.sh", GREET);
    assert_eq!(context.build(&other, "elsewhere/greeter:v2").digest, built.digest);
}

/// The base is what an engine pushed, as in the first minutes of every user.
#[test]
fn build_goes_on_from_what_an_engine_pushed() {
    let server = Server::start();
    for (engine, name) in [(engine::debian(), "old"), (engine::newest(), "new")] {
        let base = format!("{}/base/{name}:latest", server.host());
        engine.import("busybox", &base);
        engine.docker(["push", &base]).ok();
        // Once by the server's own address, once by the bare name.
        for (from, tag) in [(base.clone(), "by-address"), (format!("base/{name}"), "by-name")] {
            let context = Context::new(&format!(
                "FROM {from}\nRUN echo {name} > /who\nCMD [\"cat\", \"/who\"]\n"
            ));
            context.build(&server, &format!("app/{name}:{tag}"));
            let image = format!("{}/app/{name}:{tag}", server.host());
            assert_eq!(
                engine.docker(["run", "--rm", "--network=none", &image]).ok(),
                name
            );
        }
    }
}
