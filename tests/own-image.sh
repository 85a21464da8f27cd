#!/usr/bin/env bash
# Builds Layeryard's own Dockerfile with `layeryard build`, for real and to its end, then runs docker-compose.yml with the
# image: an engine pushes to the container, builds on what it pushed with RUN steps, and pulls; the same with the profile
# `replicas`, of which one is killed. Needs root, the ports 5000 and 5001, the network's package registries and 25 minutes.
# Nothing is pulled from elsewhere: the base with Rust is made of this machine's own toolchain, the images of PostgreSQL,
# nginx and versitygw of Debian's packages and the peers, by `layeryard build` too.
#
#   tests/own-image.sh [LAYERYARD]        the program that builds [default: target/release/layeryard]
#
# PROFILE names the profile of Cargo.toml that the Dockerfile gets [default: dev, which is ready soonest].
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
layeryard=$(realpath "${1:-$here/target/release/layeryard}")
profile=${PROFILE:-dev}
peers=${LAYERYARD_PEERS_DIR:-$HOME/.cache/layeryard-peers}
scratch=$(mktemp -d /tmp/own-image.XXXXXX)
address=127.0.0.1:5055
bridge=lyown
pids=()

say() { printf 'own-image: %s\n' "$*"; }
fail() { say "FAILED: $*" >&2; tail -n 30 "$scratch"/*.log >&2 || true; exit 1; }

# shellcheck disable=SC2317 # the trap calls it
cleanup() {
    local pid table
    [ -z "${composed:-}" ] || compose --profile replicas down --volumes --timeout 5 >/dev/null 2>&1 || true
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    ip link del "$bridge" 2>/dev/null || true
    for table in nat filter; do
        iptables-save -t "$table" | grep -e "^-A.* $bridge " | sed 's/^-A/-D/' |
            while read -r rule; do eval "iptables -t $table $rule" || true; done
    done
    rm -rf "$scratch"
}
trap cleanup EXIT

await() { # WHAT COMMAND...
    local what=$1 tries=0
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 240 ] || fail "$what"
        sleep 0.5
    done
}

on_host() { "$layeryard" "$@" --server "http://$address"; }

# A base with Rust: Debian, a C compiler, and the toolchain that this machine has, with the certificates that it trusts.
make_rust_base() {
    local context=$scratch/rust toolchain
    toolchain=$(rustc --print sysroot)
    mkdir -p "$context/toolchain"
    cp -al "$toolchain/bin" "$toolchain/lib" "$context/toolchain/"
    cp -L /etc/ssl/certs/ca-certificates.crt "$context/ca.crt"
    cat >"$context/Dockerfile" <<'DOCKERFILE'
FROM debian:12
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ libc6-dev make cmake pkg-config ca-certificates
COPY toolchain /opt/rust
COPY ca.crt /etc/ssl/certs/ca-certificates.crt
ENV PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    CARGO_HTTP_CAINFO=/etc/ssl/certs/ca-certificates.crt
RUN cargo --version
DOCKERFILE
    on_host build --progress plain -t rust:1.95-bookworm "$context" >>"$scratch/build.log" 2>&1 || fail "the base with Rust"
}

# Images under the names that docker-compose.yml gives, which mind the same variables and paths as the real ones.
make_services() {
    local context=$scratch/services
    mkdir -p "$context"/{postgres,nginx,s3}
    cat >"$context/postgres/Dockerfile" <<'DOCKERFILE'
FROM debian:12
RUN apt-get update && apt-get install -y --no-install-recommends postgresql-15
COPY --chmod=755 start.sh /start.sh
ENTRYPOINT ["/start.sh"]
DOCKERFILE
    cat >"$context/postgres/start.sh" <<'SCRIPT'
#!/bin/sh
set -eu
bin=/usr/lib/postgresql/15/bin data=/var/lib/postgresql/data
chown postgres "$data"
if [ ! -s "$data/PG_VERSION" ]; then
    printf '%s\n' "$POSTGRES_PASSWORD" >/tmp/password
    chown postgres /tmp/password
    su postgres -c "$bin/initdb -D $data -U $POSTGRES_USER --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256"
    echo "host all all all scram-sha-256" >>"$data/pg_hba.conf"
    su postgres -c "$bin/pg_ctl -D $data -w start -o '-c listen_addresses='"
    su postgres -c "psql -U $POSTGRES_USER -d postgres -c 'CREATE DATABASE \"$POSTGRES_DB\"'"
    su postgres -c "$bin/pg_ctl -D $data -w stop"
fi
exec su postgres -c "exec $bin/postgres -D $data -c listen_addresses='*'"
SCRIPT
    cat >"$context/nginx/Dockerfile" <<'DOCKERFILE'
FROM debian:12
RUN apt-get update && apt-get install -y --no-install-recommends nginx && rm /etc/nginx/sites-enabled/default
CMD ["nginx", "-g", "daemon off;"]
DOCKERFILE
    cp "$peers/bin/versitygw" "$context/s3/"
    cat >"$context/s3/Dockerfile" <<'DOCKERFILE'
FROM debian:12
RUN apt-get update && apt-get install -y --no-install-recommends wget
COPY versitygw /usr/local/bin/
DOCKERFILE
    local image
    for image in postgres:15 nginx:1.28 versity/versitygw:latest; do
        local directory=${image%%:*}
        [ "$directory" != versity/versitygw ] || directory=s3
        on_host build --progress plain -t "$image" "$context/$directory" >>"$scratch/build.log" 2>&1 || fail "$image"
        docker pull --quiet "localhost:5055/$image" >/dev/null
        docker tag "localhost:5055/$image" "$image"
    done
}

# Three replicas behind nginx: what is pushed through it is pulled through it, and one that dies is not missed.
follow_replicas() {
    compose --profile replicas up --detach --no-build --wait >>"$scratch/compose.log" 2>&1 ||
        fail "docker compose --profile replicas up"
    await "the balancer does not answer" curl -fsS http://127.0.0.1:5001/readyz
    docker tag localhost:5000/debian:12 localhost:5001/debian:12
    docker push localhost:5001/debian:12 >"$scratch/push.log" 2>&1 || fail "docker push through the balancer"
    compose kill replica-2 >>"$scratch/compose.log" 2>&1
    docker tag localhost:5000/debian:12 localhost:5001/again:12
    docker push localhost:5001/again:12 >"$scratch/push.log" 2>&1 || fail "docker push with a replica down"
    docker rmi localhost:5001/again:12 >/dev/null
    docker pull --quiet localhost:5001/again:12 >/dev/null || fail "docker pull with a replica down"
    say "docker compose --profile replicas: pushed, one replica killed, pushed, pulled"
}

start_engine() {
    local system=/usr/sbin:/usr/bin:/sbin:/bin
    ip link add "$bridge" type bridge
    ip addr add 10.217.0.1/24 dev "$bridge"
    ip link set "$bridge" up
    PATH=$system /usr/sbin/dockerd --data-root "$scratch/engine" --exec-root "$scratch/exec" --pidfile "$scratch/pid" \
        -H "unix://$scratch/s" --bridge="$bridge" >"$scratch/engine.log" 2>&1 &
    pids+=($!)
    export DOCKER_HOST=unix://$scratch/s DOCKER_CONFIG=$scratch/config DOCKER_MIN_API_VERSION=1.24
    await "the engine does not start" docker version
}

compose() { "$peers/bin/docker-compose" --project-directory "$here" --file "$here/docker-compose.yml" "$@"; }

# The registry of docker-compose.yml, in a container: pushed to, built on, pulled from.
follow_compose() {
    local context=$scratch/context
    composed=yes
    compose up --detach --no-build >"$scratch/compose.log" 2>&1 || fail "docker compose up"
    await "nothing listens on 127.0.0.1:5000" curl -fsS http://127.0.0.1:5000/readyz
    docker import "$peers/rootfs/debian.tar" localhost:5000/debian:12 >/dev/null
    docker push localhost:5000/debian:12 >"$scratch/push.log" 2>&1 || fail "docker push to the container"
    mkdir -p "$context"
    printf 'FROM debian:12\nRUN id -u > /built && apt-get update\nCMD ["cat", "/built"]\n' >"$context/Dockerfile"
    "$layeryard" build --progress plain -t built:1 "$context" --server http://127.0.0.1:5000 >"$scratch/inner.log" 2>&1 ||
        fail "a build in the container"
    [ "$(docker run --rm localhost:5000/built:1)" = 0 ] || fail "what the container built does not run"
    compose ps --format '{{.Service}} {{.Health}}' | grep -qx 'layeryard healthy' ||
        await "the container is not healthy" sh -c "docker ps --filter health=healthy --quiet | grep -q ."
    say "docker compose: pushed to, built on what was pushed, pulled, ran"
}

"$here/tests/peers/install.sh" debian rootfs compose s3
"$layeryard" serve --listen "$address" --data-dir "$scratch/data" >"$scratch/server.log" 2>&1 &
pids+=($!)
await "the server does not start" curl -fsS "http://$address/readyz"
on_host import "$peers/rootfs/debian.tar" debian:12 >/dev/null
begun=$SECONDS
make_rust_base
say "a base with Rust: $((SECONDS - begun)) s"
git clone --quiet "$here" "$scratch/source"
begun=$SECONDS
on_host build --progress plain -t layeryard:latest --build-arg RUST_IMAGE="rust:1.95-bookworm" \
    --build-arg RUNTIME_IMAGE=debian:12 --build-arg PROFILE="$profile" "$scratch/source" >>"$scratch/build.log" 2>&1 ||
    fail "our own Dockerfile"
say "our own Dockerfile, profile $profile: $((SECONDS - begun)) s"
start_engine
docker pull --quiet "localhost:5055/layeryard:latest" >/dev/null
docker tag localhost:5055/layeryard:latest layeryard:latest
docker run --rm --network none layeryard:latest version || fail "the image does not run"
follow_compose
make_services
follow_replicas
say passed
