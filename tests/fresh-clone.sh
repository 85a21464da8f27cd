#!/usr/bin/env bash
# Follows README.md as a new user would, in a fresh clone of what is committed: `make run`, then with each of two real
# engines, Debian's and the newest: push debian:12, build on it the Dockerfile that README.md shows, pull, run, and read
# the page that it serves. Needs root, and the ports 5000 and 8080.
#
#   tests/fresh-clone.sh [COMMIT]
#
# CARGO_TARGET_DIR may name a directory that other clones share; without it everything is compiled anew.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
commit=${1:-HEAD}
peers=${LAYERYARD_PEERS_DIR:-$HOME/.cache/layeryard-peers}
scratch=$(mktemp -d /tmp/fresh-clone.XXXXXX)
pids=()
bridges=()

say() { printf 'fresh-clone: %s\n' "$*"; }
fail() { say "FAILED: $*" >&2; tail -n 20 "$scratch"/*.log >&2 || true; exit 1; }

# shellcheck disable=SC2317 # the trap calls it
cleanup() {
    local pid bridge table
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    for bridge in "${bridges[@]}"; do
        ip link del "$bridge" 2>/dev/null || true
        for table in nat filter; do
            iptables-save -t "$table" | grep -e "^-A.* $bridge " | sed 's/^-A/-D/' |
                while read -r rule; do eval "iptables -t $table $rule" || true; done
        done
    done
    rm -rf "$scratch"
}
trap cleanup EXIT

await() { # WHAT COMMAND...
    local what=$1 tries=0
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 1200 ] || fail "$what"
        sleep 0.5
    done
}

alive() { kill -0 "${pids[0]}" 2>/dev/null || fail "the server ended"; }

start_engine() { # NAME DOCKERD PATH ADDRESS FLAG...
    local name=$1 dockerd=$2 path=$3 address=$4 dir=$scratch/$1 bridge=lyfc-$1
    shift 4
    mkdir -p "$dir"
    ip link add "$bridge" type bridge
    bridges+=("$bridge")
    ip addr add "$address" dev "$bridge"
    ip link set "$bridge" up
    PATH=$path DOCKER_MIN_API_VERSION=1.24 "$dockerd" --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/pid" \
        -H "unix://$dir/s" --bridge="$bridge" "$@" >"$scratch/$name.log" 2>&1 &
    pids+=($!)
    export DOCKER_HOST=unix://$dir/s DOCKER_CONFIG=$dir/config DOCKER_BUILDKIT=0
    await "the engine $name does not start" docker version
}

# What stands in README.md between the heading and the end of its example.
readme_dockerfile() { sed -n "/^cat > Dockerfile <<'END'/,/^END/p" "$scratch/clone/README.md" | sed '1d;$d'; }

follow() { # NAME: the current engine
    local name=$1 context=$scratch/context-$1 page="served by what $1 ran"
    docker import "$peers/rootfs/debian.tar" debian:12 >/dev/null
    docker tag debian:12 localhost:5000/debian:12
    docker push localhost:5000/debian:12 >/dev/null || fail "$name does not push"
    mkdir -p "$context"
    readme_dockerfile >"$context/Dockerfile"
    grep -q '^FROM debian:12' "$context/Dockerfile" || fail "README.md shows no Dockerfile"
    echo "$page" >"$context/index.html"
    (cd "$context" && layeryard build -t web:1 . >"$scratch/build-$name.log" 2>&1) || fail "the build"
    docker run --detach --name web --publish 8080:80 localhost:5000/web:1 >/dev/null || fail "$name does not run the image"
    await "$name: no page" curl -fsS http://127.0.0.1:8080/
    [ "$(curl -fsS http://127.0.0.1:8080/)" = "$page" ] || fail "$name: another page"
    docker rm --force web >/dev/null
    say "$name: pushed, built on what it pushed, pulled, ran, and served the page"
}

"$here/tests/peers/install.sh" debian rootfs engine
git clone --quiet "$here" "$scratch/clone"
git -C "$scratch/clone" checkout --quiet "$(git -C "$here" rev-parse "$commit")"
cd "$scratch/clone"
say "make run at $(git log -1 --format='%h %s')"
# Only the data lie elsewhere than README.md says.
make run ARGS="--data-dir $scratch/data" >"$scratch/server.log" 2>&1 &
pids+=($!)
for _ in $(seq 7200); do
    curl -fsS http://localhost:5000/readyz >/dev/null 2>&1 && break
    alive
    sleep 0.5
done
curl -fsS http://localhost:5000/v2/ >/dev/null || fail "nothing listens on localhost:5000"
PATH=${CARGO_TARGET_DIR:-$scratch/clone/target}/release:$PATH

system=/usr/sbin:/usr/bin:/sbin:/bin
start_engine debian /usr/sbin/dockerd "$system" 10.215.0.1/24
follow debian
start_engine newest "$peers/bin/dockerd" "$peers/bin:$system" 10.216.0.1/24 --iptables=false
follow newest
say passed
